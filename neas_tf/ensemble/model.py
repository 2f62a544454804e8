"""The stand-alone ensemble: a functional model with a shared trunk and K paths (section 3.1).

The builder takes the Keras module as a parameter: `tf_keras` for everything that trains, `keras`
(Keras 3) for a twin with the same flat weight order and the same outputs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection, Sequence
from typing import Any

from neas_tf.common.errors import NeasError, check, check_rate, unknown_name
from neas_tf.ensemble.layers import (
    BATCH_NORM_EPSILON,
    LayerFactory,
    head_features,
    searchable_layer,
    separable_block,
    stem,
)
from neas_tf.ensemble.rewrites import NO_REWRITES, Rewrites, deployed_weights
from neas_tf.operators import Operator, operator_steps
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import LayerSpec, SearchSpace

OUTPUTS = ("logits", "mean", "features", "maps")
PATH_LOGITS = "path_logits"  # of the fused form, beside the mean logits
_TRUNK_PREFIXES = ("stem_", "block_", "trunk_")
_BATCH_NORM_ROLES = ("gamma", "beta", "moving_mean", "moving_variance")
_LAYER_NAME = re.compile(r"(?:trunk|path(\d+))_l(\d+)_(.+)")
_HEAD_NAME = re.compile(r"path(\d+)_(head_conv|head_bn|feature|classifier)")
_FIXED_NAME = re.compile(r"(stem|block)_(conv|bn|dw|dw_bn|se_reduce|se_expand|pw|pw_bn)")


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where one weight of a stand-alone ensemble belongs.

    Attributes:
      part: 'stem', 'block', 'layer' or 'head'.
      layer: number of the searchable layer (1-based); 0 for the other parts.
      path: 0-based path of a head or of a layer after the split; 0 for shared parts.
      operator: name of the layer's operator; '' for the other parts.
      role: sub-layer and weight, such as 'expand/kernel', 'dw_bn/moving_mean', 'se_reduce/bias',
        'conv/kernel' (stem), 'pw/kernel' (block), 'head_conv/kernel', 'classifier/bias'.
    """

    part: str
    layer: int
    path: int
    operator: str
    role: str


def build_ensemble(
    architecture: Architecture,
    space: SearchSpace,
    *,
    keras: Any = None,
    dropout: float = 0.2,
    drop_path: float = 0.0,
    batch_norm_momentum: float = 0.99,
    synchronized: bool = False,
    outputs: str = "logits",
    deploy: bool = False,
    rewrites: Rewrites = NO_REWRITES,
    dtype: Any = None,
    seed: int | None = None,
    name: str = "neas",
):
    """Builds the network of an architecture with fresh weights.

    Layers are named `stem_…`, `block_…`, `trunk_l03_k5e6_…` (shared), `path1_l17_k3e4_…` and
    `path1_head_…`, `path1_feature`, `path1_classifier`; `trunk_variables` and `weight_slots`
    build on these names. Convolutions begin He-normal by fan-out, biases at 0, gammas at 1.

    Args:
      architecture: lies in `space`; a skip adds no layer.
      space: gives all widths, strides, the input size and the number of classes.
      keras: the Keras module to build with; None is `tf_keras`.
      dropout: rate in front of the classifiers.
      drop_path: rate of stochastic depth at the last searchable layer; it grows linearly with the
        layer's number. Only residual layers take part.
      batch_norm_momentum: of the moving averages.
      synchronized: batch moments over all replicas.
      outputs: 'logits' (batch, K, classes); 'mean' (batch, classes), Eq. 1; 'features'
        (batch, K, feature_channels); 'maps', a list of K maps after the last searchable layer.
        Logits, means and features are float32 under any precision policy.
      deploy: builds the fused form instead: one output (batch, classes), the mean of the logits,
        from one Dense `classifier` over the concatenated features of all paths; no dropout. With
        outputs='path_logits' a Dense for each path, their mean and, as a second output, their
        logits (batch, K, classes).
      rewrites: of the fused form, for `fold_for_deployment`, which fits the weights to them.
      dtype: dtype or policy of the layers; None takes the global policy.
      seed: makes the initial weights reproducible.
      name: of the model.

    Returns:
      A `keras.Model` from a float32 image batch (batch, height, width, channels), already
      normalised.

    Raises:
      NeasError: when the architecture is not in the space or an argument is out of range.
    """
    keras = keras or _tf_keras()
    architecture.check_in(space)
    known = ("logits", PATH_LOGITS) if deploy else OUTPUTS
    if outputs not in known:
        unknown_name("outputs", outputs, known)
    check(deploy or rewrites == NO_REWRITES, "rewrites", rewrites, "none when deploy=False")
    for field, rate in (("dropout", dropout), ("drop_path", drop_path)):
        check_rate(field, rate)
    make = LayerFactory(
        keras,
        momentum=batch_norm_momentum,
        synchronized=synchronized,
        dtype=dtype,
        seed=seed,
        rewrites=rewrites,
    )
    image = keras.Input((*space.input_size, space.input_channels), name="input")
    maps, _ = path_maps(make, image, architecture, space, None if deploy else drop_path)
    if outputs == "maps":
        return keras.Model(image, maps, name=name)
    if deploy:
        head = _fused_paths if outputs == PATH_LOGITS else _fused_head
        return keras.Model(image, head(make, maps, space), name=name)
    return keras.Model(image, path_heads(make, maps, space, outputs, dropout), name=name)


def _tf_keras() -> Any:
    """What trains; loaded when it is needed, as Keras 3 also runs without TensorFlow."""
    import tf_keras

    return tf_keras


def path_maps(
    make: LayerFactory,
    x: Any,
    architecture: Architecture,
    space: SearchSpace,
    drop_path: float | None,
    tapped: Collection[int] = (),
) -> tuple[list, dict[int, list]]:
    """Adds the trunk once, then each path's searchable layers.

    Args:
      make: of the network.
      x: normalised images (b, h, w, c); the height and width need not be the space's.
      architecture: lies in `space`.
      space: gives widths and strides.
      drop_path: see `build_ensemble`; None leaves the layers out.
      tapped: numbers of searchable layers (1-based) whose maps are wanted too.

    Returns:
      K maps (b, h, w, out_channels); and by number those after the tapped layers: one where the
      layer is shared, K after the split.
    """
    taps: dict[int, list] = {}
    activation = space.activation
    x = stem(make, x, space.stem_channels, space.stem_kernel, space.stem_stride, activation)
    if space.block_channels:
        x = separable_block(make, x, space.block_channels, space.block_stride, activation)

    def layers(x, part: str, names: tuple[str, ...], first: int):
        for number, operator in enumerate(names, first + 1):
            rate = None if drop_path is None else drop_path * number / space.num_layers
            prefix = f"{part}_l{number:02d}_{operator}"
            layer = space.layers[number - 1]
            x = searchable_layer(make, x, prefix, layer, Operator.parse(operator), rate)
            if number in tapped:
                taps.setdefault(number, []).append(x)
        return x

    split = architecture.split_point
    trunk = layers(x, "trunk", architecture.shared, 0)
    maps = [
        layers(trunk, f"path{k}", row[split:], split) for k, row in enumerate(architecture.paths, 1)
    ]
    return maps, taps


def _head_features(make: LayerFactory, maps: list, space: SearchSpace) -> list:
    """K of (b, 1, 1, feature_channels)."""
    widths = space.head_channels, space.feature_channels
    return [
        head_features(make, x, f"path{k}", *widths, space.activation) for k, x in enumerate(maps, 1)
    ]


def _fused_head(make: LayerFactory, maps: list, space: SearchSpace):
    """K maps to the mean of the logits, (b, classes), with one matrix product."""
    layers = make.keras.layers
    features = _head_features(make, maps, space)
    x = features[0]
    if len(features) > 1:
        x = layers.Concatenate(name="features")(features)  # (b, 1, 1, K·f)
    x = layers.Flatten(name="features_flat")(x)
    return make.dense(x, "classifier", space.num_classes, "float32")


def _fused_paths(make: LayerFactory, maps: list, space: SearchSpace) -> list:
    """K maps to the mean of the logits (b, classes) and the logits of each path (b, K, classes)."""
    layers = make.keras.layers
    rows = [
        make.dense(
            layers.Flatten(name=f"path{k}_feature_flat")(x),
            f"path{k}_classifier",
            space.num_classes,
            "float32",
        )
        for k, x in enumerate(_head_features(make, maps, space), 1)
    ]
    # Joined before they get their axis: operations of integer graphs share the range of one map.
    x = layers.Concatenate(name="paths_flat", dtype="float32")(rows) if len(rows) > 1 else rows[0]
    x = layers.Reshape((len(rows), space.num_classes), name=PATH_LOGITS, dtype="float32")(x)
    return [layers.GlobalAveragePooling1D(name="mean", dtype="float32")(x), x]


def path_heads(make: LayerFactory, maps: list, space: SearchSpace, outputs: str, dropout: float):
    """K maps to logits, mean or features, as `build_ensemble` describes them."""
    layers = make.keras.layers
    rows, units = [], space.feature_channels
    for k, x in enumerate(_head_features(make, maps, space), 1):
        if outputs != "features":
            units = space.num_classes
            x = layers.Flatten(name=f"path{k}_feature_flat")(x)
            x = make.dropout(x, f"path{k}_dropout", dropout)
            x = make.dense(x, f"path{k}_classifier", units, "float32")
        rows.append(x)
    stacked = stacked_paths(make, rows, units)
    if outputs == "mean":
        return layers.GlobalAveragePooling1D(name="mean", dtype="float32")(stacked)
    return stacked


def stacked_paths(make: LayerFactory, rows: list, units: int):
    """K of (b, …) with `units` numbers an image each, to float32 (b, K, units)."""
    layers = make.keras.layers
    rows = [
        layers.Reshape((1, units), name=f"path{k}_row", dtype="float32")(x)
        for k, x in enumerate(rows, 1)
    ]
    if len(rows) == 1:
        return rows[0]
    return layers.Concatenate(axis=1, name="paths", dtype="float32")(rows)


def fold_for_deployment(
    model,
    architecture: Architecture,
    space: SearchSpace,
    *,
    keras: Any = None,
    rewrites: Rewrites = NO_REWRITES,
    input_scale: Sequence[float] | None = None,
    outputs: str = "logits",
):
    """The fused float32 form of a trained ensemble, with copies of its weights.

    The K classifiers become one Dense over the concatenated features, with the kernels stacked
    and divided by K and the mean of the biases: exact, because the ensemble averages logits (Eq. 1).

    Args:
      model: built by `build_ensemble(architecture, space, outputs='logits' or 'mean')`.
      architecture: of the model.
      space: of the model.
      keras: module to build the fused form with, None is `tf_keras`; it need not be that of `model`.
      rewrites: for small devices.
      input_scale: with `rewrites.normalisation`: factor per channel that the input then lacks.
      outputs: 'logits', or 'path_logits' for those of each path as a second output.

    Returns:
      `build_ensemble(..., deploy=True)`, (batch, h, w, c) to mean logits (batch, classes).

    Raises:
      NeasError: when the model is not the architecture's.
    """
    fused = build_ensemble(
        architecture,
        space,
        keras=keras,
        deploy=True,
        outputs=outputs,
        rewrites=rewrites,
        dtype="float32",
    )
    sources = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    targets = {layer.name: layer for layer in fused.layers if layer.weights}
    weights = deployed_weights(list(targets), sources, rewrites, BATCH_NORM_EPSILON, input_scale)
    for name, layer in targets.items():
        try:
            layer.set_weights(weights[name])
        except ValueError as error:
            raise NeasError(
                f"model: layer {name!r} does not fit space {space.name!r} ({error})."
            ) from None
    return fused


def trunk_variables(model) -> list:
    """Trainable variables of the stem, the block and the shared layers 1..s.

    Their gradient is the sum over K losses; training divides it by K (method of the authors'
    retraining code).
    """
    return [
        variable
        for layer in model.layers
        if layer.name.startswith(_TRUNK_PREFIXES)
        for variable in layer.trainable_variables
    ]


def model_slots(model) -> list[Slot]:
    """The slots of a trainable-form ensemble, in the order of `model.weights`."""
    slots = []
    for layer in model.layers:
        if not layer.weights:
            continue
        part, number, path, operator, sublayer = _place(layer.name)
        kinds = _BATCH_NORM_ROLES if sublayer.endswith("bn") else ("kernel", "bias")
        for kind in kinds[: len(layer.weights)]:
            slots.append(Slot(part, number, path, operator, f"{sublayer}/{kind}"))
    return slots


@functools.lru_cache(maxsize=32)
def weight_slots(architecture: Architecture, space: SearchSpace) -> tuple[Slot, ...]:
    """Like `model_slots`, for the model that `build_ensemble` makes of an architecture.

    The order is Keras' order of layers by depth, which interleaves the paths; a model is built to
    learn it (cached), so with a model at hand `model_slots` is quicker.
    """
    return tuple(model_slots(build_ensemble(architecture, space)))


def _place(name: str) -> tuple[str, int, int, str, str]:
    """(part, layer, path, operator, sub-layer) from the name of a layer with weights."""
    if match := _LAYER_NAME.fullmatch(name):
        path, number, rest = match.groups()
        words = rest.split("_")
        for count in range(len(words) - 1, 0, -1):  # operators and roles may have a _ inside
            operator, sublayer = "_".join(words[:count]), "_".join(words[count:])
            if sublayer in _sublayers(operator):
                return "layer", int(number), int(path or 1) - 1, operator, sublayer
    if match := _HEAD_NAME.fullmatch(name):
        return "head", 0, int(match[1]) - 1, "", match[2]
    if match := _FIXED_NAME.fullmatch(name):
        return match[1], 0, 0, "", match[2]
    raise NeasError(f"model: layer {name!r} is not one of a trainable-form ensemble.")


@functools.lru_cache(maxsize=1024)
def _sublayers(name: str) -> frozenset[str]:
    """Names of an operator's layers with weights; none where the name is no operator's."""
    try:
        operator = Operator.parse(name)
    except NeasError:
        return frozenset()
    layers = [
        LayerSpec(1, 0, 8, 8 * stride, stride, (8, 8), (8 // stride,) * 2, (name,))
        for stride in (1, 2)
        if operator.fits(8, 8 * stride, stride)
    ]
    steps = [step for layer in layers for step in operator_steps(operator, layer)]
    return frozenset(sublayer for step in steps for sublayer in step.sublayers)
