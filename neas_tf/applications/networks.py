"""Ensembles as models of Keras 3 (or tf_keras), from pixels to probabilities, features or levels."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from neas_tf.applications.predictions import usual_normalisation
from neas_tf.applications.weights import OWN, Weights, find, read_weights
from neas_tf.common.errors import check, check_int, check_rate, fail, unknown_name
from neas_tf.ensemble.layers import LayerFactory, head_map, pixel_input
from neas_tf.ensemble.levels import MERGES, check_levels, level_layers, merged
from neas_tf.ensemble.model import path_heads, path_maps, stacked_paths
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

OUTPUTS = ("mean", "paths")
_POOLINGS = (None, "avg", "max")
_LEVEL = re.compile(r"C(\d)", re.ASCII)

Source = str | os.PathLike[str] | Sequence[int] | Mapping[str, Any] | Architecture
Space = str | os.PathLike[str] | Mapping[str, Any] | SearchSpace | None
Shape = tuple[int | None, int | None, int]


def ensemble_model(
    architecture: Source,
    space: Space = None,
    *,
    weights: Any = OWN,
    classes: int | None = None,
    input_shape: Shape | None = None,
    include_top: bool = True,
    pooling: str | None = None,
    include_preprocessing: bool = True,
    classifier_activation: str | None = "softmax",
    outputs: str = "mean",
    dropout: float = 0.2,
    drop_path: float = 0.0,
    seed: int | None = None,
    name: str | None = None,
    keras: Any = None,
) -> Any:
    """The `keras.Model` of any ensemble: found by a run, from a file, by name or by key.

    Args:
      architecture: the folder of a run or of a stored model, or anything that
        `neas.load_architecture` reads: a name, a JSON file, a key, an `Architecture`.
      space: that the architecture lies in, also as a mapping or the path of a file; None is a
        folder's own, else the paper's.
      weights: None for random ones; or where they are: the folder of a run, of a stored model or of
        a converted checkpoint, a `.keras` or a `.weights.h5` file, a model in hand. With other
        `classes` all but the classifiers is taken, and a line on stderr says so; the input may
        have any size. 'own' are the folder's own where `architecture` is one, else random ones.
      classes: None is the space's number.
      input_shape: (height, width, channels), where height and width may be None; None is the
        space's.
      include_top: whether the classifiers are there; otherwise the output are features.
      pooling: of the features. None gives the maps after each path's last convolution,
        (batch, h, w, head_channels); 'avg' and 'max' their mean and maximum over the places,
        (batch, head_channels).
      include_preprocessing: whether the model takes pixels in 0..255 and normalises them itself,
        with the constants that the weights were trained with; without weights ImageNet's, and for
        other than three channels to -1..1. Otherwise `preprocess_input` does it.
      classifier_activation: of the outputs, 'softmax' or another of Keras; None gives logits.
      outputs: 'mean' is the ensemble: one activation of the mean of the K paths' logits
        (Eq. 1), or the mean of their features. 'paths' is each path by itself: (batch, K, classes)
        or (batch, K, head_channels), and without pooling a list of K maps.
      dropout: rate in front of the classifiers.
      drop_path: rate of stochastic depth at the last layer, growing linearly with the depth.
      seed: makes the initial weights reproducible.
      name: of the model.
      keras: None is `keras`, Keras 3 on its backend; or `tf_keras`.

    With `include_top` pooling says nothing, and without it classes and classifier_activation.

    Returns:
      A model from `image`, (batch, height, width, channels).

    Raises:
      NeasError: for a value out of range, or weights that are not the architecture's.
    """
    keras = _module(keras)
    if outputs not in OUTPUTS:
        unknown_name("outputs", outputs, OUTPUTS)
    check(pooling in _POOLINGS, "pooling", pooling, "None, 'avg' or 'max'")
    _check_activation(keras, classifier_activation)
    check_rate("dropout", dropout)
    begin = _begin(
        keras,
        architecture,
        space,
        weights,
        classes=classes if include_top else None,
        input_shape=input_shape,
        include_preprocessing=include_preprocessing,
        drop_path=drop_path,
        seed=seed,
    )
    make, own = begin.make, begin.space
    maps, _ = path_maps(make, begin.x, begin.architecture, own, drop_path)
    if include_top:
        result = path_heads(make, maps, own, "mean" if outputs == "mean" else "logits", dropout)
        if classifier_activation is not None:
            activation = keras.layers.Activation(
                classifier_activation, name="predictions", dtype="float32"
            )
            result = activation(result)
    else:
        result = _features(make, maps, own.head_channels, own.activation, pooling, outputs)
    return begin.finish(result, name)


def _published(name: str, architecture: str) -> Callable[..., Any]:
    def build(
        weights: Any = None,
        classes: int = 1000,
        input_shape: Shape = (224, 224, 3),
        include_top: bool = True,
        pooling: str | None = None,
        include_preprocessing: bool = True,
        classifier_activation: str | None = "softmax",
        outputs: str = "mean",
        *,
        dropout: float = 0.2,
        drop_path: float = 0.0,
        seed: int | None = None,
        name: str = architecture,
        keras: Any = None,
    ) -> Any:
        return ensemble_model(
            architecture,
            weights=weights,
            classes=classes,
            input_shape=input_shape,
            include_top=include_top,
            pooling=pooling,
            include_preprocessing=include_preprocessing,
            classifier_activation=classifier_activation,
            outputs=outputs,
            dropout=dropout,
            drop_path=drop_path,
            seed=seed,
            name=name,
            keras=keras,
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""The published ensemble {architecture}; arguments as in `ensemble_model`."""
    return build


NEASS = _published("NEASS", "neas_s")
NEASM = _published("NEASM", "neas_m")
NEASL = _published("NEASL", "neas_l")


def backbone(
    architecture: Source,
    space: Space = None,
    *,
    levels: Sequence[str] = ("C3", "C4", "C5"),
    merge: str = "mean",
    weights: Any = OWN,
    input_shape: Shape | None = None,
    include_preprocessing: bool = True,
    drop_path: float = 0.0,
    seed: int | None = None,
    name: str | None = None,
    keras: Any = None,
) -> Any:
    """The levels of a feature pyramid, for heads of segmentation and detection.

    The other arguments are as in `ensemble_model`.

    Args:
      levels: such as 'C3': the map after the last layer with stride 2^3. After the split a level is
        merged of the K paths' maps.
      merge: 'mean', 'sum' or 'concat' (K times the channels).

    Returns:
      A model from `image` to a dict of maps by level, (batch, ⌈h/2^l⌉, ⌈w/2^l⌉, channels);
      `model.get_layer("C3").output` is one of them.

    Raises:
      NeasError: for a level that the space does not have, a value out of range, or weights that are
        not the architecture's.
    """
    keras = _module(keras)
    if merge not in MERGES:
        unknown_name("merge", merge, MERGES)
    begin = _begin(
        keras,
        architecture,
        space,
        weights,
        input_shape=input_shape,
        include_preprocessing=include_preprocessing,
        drop_path=drop_path,
        seed=seed,
    )
    own, title = begin.space, begin.architecture.name or begin.architecture.key
    names = {}  # of the levels, by the number of their layer
    of_level = level_layers(own)
    check(not isinstance(levels, str) and len(levels) > 0, "levels", levels, "such as ('C3', 'C5')")
    for level in levels:
        match = _LEVEL.fullmatch(level) if isinstance(level, str) else None
        if match is None:
            fail("levels", level, "names such as 'C3'")
        check_levels("levels", int(match[1]), own, title)
        names[of_level[int(match[1])]] = level
    _, taps = path_maps(begin.make, begin.x, begin.architecture, own, drop_path, names)
    result = {}
    for number, level in sorted(names.items()):
        x = merged(begin.make, taps[number], merge, level)
        if len(taps[number]) == 1:
            x = keras.layers.Activation("linear", name=level)(x)
        result[level] = x
    return begin.finish(result, name)


@dataclasses.dataclass(frozen=True)
class _Begun:
    """A network up to its normalised input."""

    make: LayerFactory
    image: Any
    x: Any
    architecture: Architecture
    space: SearchSpace
    taken: Weights | None

    def finish(self, outputs: Any, name: str | None) -> Any:
        """The model with its weights."""
        model = self.make.keras.Model(self.image, outputs, name=name or "neas")
        if self.taken is not None:
            self.taken.put(model, self.architecture)
        return model


def _begin(
    keras: Any,
    architecture: Source,
    space: Space,
    weights: Any,
    *,
    classes: int | None = None,
    input_shape: Shape | None,
    include_preprocessing: bool,
    drop_path: float,
    seed: int | None,
) -> _Begun:
    check_rate("drop_path", drop_path)
    if seed is not None:
        check_int("seed", seed)
    found = find(architecture, space)
    own = found.space
    if classes is not None:
        own = dataclasses.replace(own, num_classes=check_int("classes", classes, 2, 1 << 20))
    shape: Shape = (*own.input_size, own.input_channels)
    if input_shape is not None:
        shape = _checked_shape(input_shape)
        own = dataclasses.replace(own, input_channels=shape[2])
    taken = read_weights(weights, found, keras)
    if include_preprocessing:
        normalisation = taken.normalisation if taken is not None else None
        if normalisation is None:
            normalisation = usual_normalisation(shape[2])
        normalisation.check_channels(shape[2])
        image, x = pixel_input(keras, shape, normalisation.scale, normalisation.offset)
    else:
        x = image = keras.Input(shape, name="image")
    return _Begun(LayerFactory(keras, seed=seed), image, x, found.architecture, own, taken)


def _features(
    make: LayerFactory,
    maps: list,
    channels: int,
    activation: str,
    pooling: str | None,
    outputs: str,
) -> Any:
    maps = [head_map(make, x, f"path{k}", channels, activation) for k, x in enumerate(maps, 1)]
    if pooling is None:
        return maps if outputs == "paths" else merged(make, maps, "mean", "features")
    layers = make.keras.layers
    kind = layers.GlobalAveragePooling2D if pooling == "avg" else layers.GlobalMaxPooling2D
    pooled = [kind(name=f"path{k}_{pooling}_pool")(x) for k, x in enumerate(maps, 1)]
    if outputs == "paths":
        return stacked_paths(make, pooled, channels)
    return merged(make, pooled, "mean", "features")


def _module(keras: Any) -> Any:
    if keras is None:
        import keras as keras_3

        return keras_3
    sound = all(hasattr(keras, name) for name in ("Input", "Model", "layers", "initializers"))
    check(sound, "keras", keras, "the module keras or tf_keras, or None for keras")
    return keras


def _check_activation(keras: Any, activation: Any) -> None:
    known = isinstance(activation, str) or activation is None or callable(activation)
    try:
        if known:
            keras.activations.get(activation)
            return
    except (ValueError, TypeError):
        pass
    fail(
        "classifier_activation", activation, "the name of an activation, such as 'softmax', or None"
    )


def _checked_shape(shape: Any) -> Shape:
    sound = isinstance(shape, tuple | list) and len(shape) == 3
    check(sound, "input_shape", shape, "(height, width, channels)")
    for side in shape[:2]:
        if side is not None:
            check_int("input_shape", side, 1, 1 << 14)
    check_int("input_shape", shape[2], 1, 1 << 16)
    return tuple(shape)
