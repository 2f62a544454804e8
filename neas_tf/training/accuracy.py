"""Top-1 and top-5 accuracy of a stand-alone ensemble and of each of its paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import network_input

_TOP = 5


def evaluate(
    model: Any,
    info: data.DatasetInfo,
    part: str,
    batch_size: int,
    seen: Callable[[np.ndarray, np.ndarray, np.ndarray], None] | None = None,
) -> dict[str, Any]:
    """Counts right answers over a part of a data set.

    Args:
      model: tf_keras, normalised images to logits (batch, K, classes).
      info: the data.
      part: of the data, such as 'test'.
      batch_size: images of one forward pass.
      seen: called for each batch with the pixels uint8 (b, h, w, c), their labels (b,) and the logits of
        each path and, last, of the ensemble (b, K + 1, classes).

    Returns:
      `path_accuracies` (K numbers in 0..1), `ensemble_accuracy` (of the mean of the logits, Eq. 1)
      and `test_examples`; where there are more than 5 classes, `top5` of the ensemble and
      `path_top5` too. Of equal logits the lower class wins.
    """
    forward = tf.function(
        lambda images: model(network_input(images, info.normalisation), training=False),
        autograph=False,
    )
    right = right5 = examples = 0
    num_classes = 0
    for images, labels in data.batches_of(
        data.make_dataset(info, part, batch_size, training=False, seed=0, pixels=True)
    ):
        logits = forward(images).numpy().astype(np.float64)  # (b, K, classes)
        scores = np.concatenate([logits, logits.mean(1, keepdims=True)], axis=1)
        num_classes = scores.shape[-1]
        truth = labels.numpy()[:, None]
        named = scores.argmax(-1)
        right = right + np.sum(named == truth, axis=0)  # (K + 1,)
        if seen is not None:
            seen(images.numpy(), truth[:, 0], scores)
        if num_classes > _TOP:
            best = np.argsort(-scores, axis=-1, kind="stable")[..., :_TOP]
            right5 = right5 + np.sum(np.any(best == truth[..., None], -1), axis=0)
        examples += len(truth)
    if not examples:
        raise NeasError(
            f"data: none of the {info.part(part).size} images of {part!r} can be decoded."
        )
    *paths, ensemble = np.divide(right, examples).tolist()
    result: dict[str, Any] = {
        "path_accuracies": paths,
        "ensemble_accuracy": ensemble,
        "test_examples": examples,
    }
    if num_classes > _TOP:
        *result["path_top5"], result["top5"] = np.divide(right5, examples).tolist()
    return result
