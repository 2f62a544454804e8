"""What is measured on a trained ensemble besides its accuracy: how its paths differ."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from neas_tf import data
from neas_tf.study.statistics import linear_cka

_DIGITS = 6  # of the numbers that are stored: beyond them lies only rounding


def compare_paths(
    model: Any, info: data.DatasetInfo, batch_size: int, beta: float
) -> dict[str, float]:
    """How the paths of an ensemble differ on the test split, averaged over the pairs of paths.

    Args:
      model: tf_keras, as `store.load_model` gives it.
      info: the data.
      batch_size: images of one forward pass.
      beta: of Eq. 5.

    Returns:
      `disagreement` (share of images that two paths put into different classes), `similarity`
      (Eq. 5, exp(−β·distance) of the maps after the last searchable layer), `distance` (of these
      maps), `cka` (linear CKA of the hidden features). {} for a single path.
    """
    num_paths = model.output_shape[1]
    if num_paths < 2:
        return {}
    maps = [model.get_layer(f"path{k}_head_conv").input for k in range(1, num_paths + 1)]
    forward = tf.function(
        tf_keras.Model(model.input, [maps, _features(model), model.output]),
        reduce_retracing=True,
        autograph=False,
    )
    pairs = list(itertools.combinations(range(num_paths), 2))
    differ, distances, similar, features, examples = 0.0, 0.0, 0.0, [], 0
    for images, _ in data.make_dataset(info, "test", batch_size, training=False, seed=0):
        found, hidden, logits = forward(images, training=False)
        classes = logits.numpy().argmax(-1)  # (b, K)
        flat = [m.numpy().reshape(len(classes), -1).astype(np.float64) for m in found]
        for p, q in pairs:
            distance = np.linalg.norm(flat[p] - flat[q], axis=1)
            differ += float(np.sum(classes[:, p] != classes[:, q]))
            distances += float(distance.sum())
            similar += float(np.exp(-beta * distance).sum())
        features.append(np.stack([h.numpy() for h in hidden]))
        examples += len(classes)
    whole, count = np.concatenate(features, 1), examples * len(pairs)
    cka = np.mean([linear_cka(whole[p], whole[q]) for p, q in pairs])
    values = {"disagreement": differ / count, "similarity": similar / count}
    values |= {"distance": distances / count, "cka": float(cka)}
    return {name: round(value, _DIGITS) for name, value in values.items()}


def embed(model: Any, info: data.DatasetInfo, images: int, seed: int) -> dict[str, Any]:
    """t-SNE of the hidden features of all paths in one plane (paper Fig. 4), of the first test images.

    Returns:
      `points[path][image]`, as [x, y], and the images' `labels`.
    """
    forward = tf.function(tf_keras.Model(model.input, _features(model)), autograph=False)
    rows, labels, count = [], [], 0
    for batch, truth in data.make_dataset(info, "test", 100, training=False, seed=0):
        rows.append(np.stack([h.numpy() for h in forward(batch, training=False)]))
        labels += truth.numpy().tolist()
        count += len(truth)
        if count >= images:
            break
    features = np.concatenate(rows, 1)[:, :images]  # (K, n, f)
    flat = features.reshape(-1, features.shape[-1])
    perplexity = min(30.0, (len(flat) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):  # sums in the same order on every machine
        points = tsne.fit_transform(flat).reshape(*features.shape[:2], 2)
    return {"points": np.round(points, 2).astype(float).tolist(), "labels": labels[:images]}


def _features(model: Any) -> list:
    """Of each path, the input of its classifier (paper: final hidden features)."""
    num_paths = model.output_shape[1]
    return [model.get_layer(f"path{k}_feature_flat").output for k in range(1, num_paths + 1)]
