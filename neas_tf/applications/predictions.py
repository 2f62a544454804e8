"""What comes before and after a network: pixels to its input, probabilities to named classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check, check_int, fail
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.store import model_folder, read_info

_IMAGENET_CLASSES = 1000


def usual_normalisation(channels: int) -> Normalisation:
    """ImageNet's for three channels; otherwise that of pixels to -1..1."""
    if channels == 3:
        return Normalisation()
    return Normalisation((0.5,) * channels, (0.5,) * channels)


def preprocess_input(
    x: Any,
    data_format: str | None = None,
    *,
    include_preprocessing: bool = True,
    normalisation: Normalisation | None = None,
) -> Any:
    """Pixels in 0..255 to what a model takes.

    Args:
      x: images (…, height, width, channels), an array or a tensor.
      data_format: None or 'channels_last'.
      include_preprocessing: that the model was built with. Such a model, the default, normalises
        its pixels itself, and `x` is returned as it is: so the usual
        `model.predict(preprocess_input(x))` is right for both.
      normalisation: of the weights, where they have another than `usual_normalisation`
        (`neas.load_model(folder)[1].normalisation`).

    Returns:
      `x`; or (x / 255 - mean) / std per channel.

    Raises:
      NeasError: for another data format, or other channels than the normalisation's.
    """
    if data_format not in (None, "channels_last"):
        fail("data_format", data_format, "'channels_last' or None")
    if include_preprocessing:
        return x
    if not hasattr(x, "shape"):
        x = np.asarray(x)
    check(len(x.shape) > 2, "x", tuple(x.shape), "images (…, height, width, channels)")
    normalisation = normalisation or usual_normalisation(x.shape[-1])
    normalisation.check_channels(x.shape[-1])
    if not isinstance(x, np.ndarray):
        import keras  # a tensor stays one of its backend

        x = keras.ops.cast(x, "float32")
    return normalisation.apply(x)


def decode_predictions(
    preds: Any, top: int = 5, class_names: Sequence[str] | str | os.PathLike[str] | None = None
) -> list[list[tuple[str, str, float]]]:
    """The most probable classes of each image, by name.

    Args:
      preds: (batch, classes), an array or a tensor.
      top: how many.
      class_names: in the order of the classes; or the folder of a run or a stored model. None are
        ImageNet's, which Keras fetches once (35 kB, into its folder `~/.keras/models`).

    Returns:
      For each image `top` tuples (id, name, score), the highest score first; the id is ImageNet's
      WordNet number, and with `class_names` the number of the class.

    Raises:
      NeasError: for another shape, and where ImageNet's names can not be fetched.
    """
    values = np.asarray(preds.detach().cpu() if hasattr(preds, "detach") else preds)
    if class_names is None:
        wanted = f"(batch, {_IMAGENET_CLASSES}), or class_names"
        check(
            values.ndim == 2 and values.shape[1] == _IMAGENET_CLASSES, "preds", values.shape, wanted
        )
        check_int("top", top, 1, _IMAGENET_CLASSES)
        from keras.applications import imagenet_utils

        try:
            return imagenet_utils.decode_predictions(values, top)
        except Exception as error:  # get_file raises a bare Exception without a network
            reason = " ".join(str(error).split())[:160]
            raise NeasError(
                "decode_predictions: Keras cannot fetch the names of ImageNet's classes "
                f"({reason}); expected a network the first time, or class_names."
            ) from None
    names = _names(class_names)
    right = values.ndim == 2 and values.shape[1] == len(names)
    check(right, "preds", values.shape, f"(batch, {len(names)}), one column a class name")
    check_int("top", top, 1, len(names))
    return [
        [(str(i), names[i], row[i].item()) for i in np.argsort(-row, kind="stable")[:top]]
        for row in values
    ]


def _names(source: Any) -> tuple[str, ...]:
    if not isinstance(source, str | os.PathLike):
        return tuple(source)
    folder = model_folder(source)
    if folder is None:
        fail("class_names", os.fspath(source), "a list, or the folder of a stored model")
    return read_info(folder).class_names
