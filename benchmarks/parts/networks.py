"""The networks that `tflite_latency` compares, each as TFLite files that are kept for the next run.

All have random weights, take an image of 0..255, give logits of 1000 classes, and have a batch of
1. The networks of others are given a scalar 1/255 in front, which the converter folds into the
first convolution: their input normalisation costs nothing here. NEAS's is in the graph.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common.console import native_noise_off
from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json, write_bytes_atomic, write_json_atomic
from neas_tf.common.paths import project_file
from neas_tf.ensemble.store import library_versions
from neas_tf.space.search_space import SearchSpace

NEAS = "neas"
FORMATS = ("float32", "int8")
CALIBRATION_IMAGES = 8


@dataclasses.dataclass(frozen=True)
class Network:
    """One line of the comparison.

    Attributes:
      name: as `--models` and the JSON have it.
      label: as the plot has it.
      family: `NEAS` or another; a colour of the plot.
      size: (height, width) of the image.
      build: makes its tf_keras models, from `image` (1, h, w, 3) in 0..255 to logits, one after
        the other, each with its number of trainable parameters. Several models run one after
        another; their times add up.
    """

    name: str
    label: str
    family: str
    size: tuple[int, int]
    build: Callable[[], Iterator[tuple[Any, int]]]


def networks() -> dict[str, Network]:
    """All networks by name, in the order of the report."""
    found = []
    for letter in "sml":
        for variant, what in (("", ""), ("_plain", ", plain"), ("_separate", ", separate paths")):
            name, label = f"neas_{letter}", f"NEAS-{letter.upper()}{what}"
            found.append(Network(f"{name}{variant}", label, NEAS, (224, 224), _neas(name, variant)))
    for name, label, model_id, side in (
        ("mobilenet_v2", "MobileNetV2", "MobileNetV2", 224),
        ("mobilenet_v3_large", "MobileNetV3-L", "MobileNetV3Large", 224),
        ("mobilenet_v4_conv_small", "MobileNetV4-Conv-S", "MobileNetV4ConvSmall", 224),
        ("mobilenet_v4_conv_medium", "MobileNetV4-Conv-M", "MobileNetV4ConvMedium", 224),
        ("mobilenet_v4_conv_medium_256", "MobileNetV4-Conv-M, 256²", "MobileNetV4ConvMedium", 256),
    ):
        found.append(Network(name, label, "mobilenet", (side, side), _mobilenet(model_id, side)))
    for name, label, kind, side in (
        ("efficientnet_b0", "EfficientNet-B0", "EfficientNetB0", 224),
        ("efficientnet_b1", "EfficientNet-B1, 240²", "EfficientNetB1", 240),
    ):
        found.append(Network(name, label, "efficientnet", (side, side), _efficientnet(kind, side)))
    return {network.name: network for network in found}


def _neas(name: str, variant: str) -> Callable[[], Iterator[tuple[Any, int]]]:
    def build():
        from neas_tf.ensemble.rewrites import MOBILE_REWRITES, NO_REWRITES
        from neas_tf.space.architecture import Architecture
        from neas_tf.space.zoo import load_architecture

        space = SearchSpace()
        whole = load_architecture(name, space)
        parts = [whole]
        if variant == "_separate":
            parts = [Architecture(whole.split_point, (row,)) for row in whole.paths]
        rewrites = NO_REWRITES if variant == "_plain" else MOBILE_REWRITES
        for architecture in parts:
            yield ensemble(architecture, space, rewrites)

    return build


def random_ensemble(architecture: Any, space: SearchSpace) -> tuple[Any, Any]:
    """An ensemble with random weights, in its trainable form, and its `LoadedInfo`."""
    from neas_tf.common.normalisation import Normalisation
    from neas_tf.ensemble.model import build_ensemble
    from neas_tf.ensemble.store import LoadedInfo

    names = tuple(map(str, range(space.num_classes)))
    info = LoadedInfo(architecture, space, names, Normalisation())
    return build_ensemble(architecture, space, seed=0), info


def ensemble(architecture: Any, space: SearchSpace, rewrites: Any) -> tuple[Any, int]:
    """An ensemble with random weights in its deployed form, and its trainable parameters."""
    from neas_tf.export.serving import deployed_model

    model, info = random_ensemble(architecture, space)
    deployed = deployed_model(model, info, rewrites, batch_size=1, probabilities=False)
    return deployed, _parameters(model)


def _mobilenet(model_id: str, side: int) -> Callable[[], Iterator[tuple[Any, int]]]:
    def build():
        import tf_keras
        from official.vision.modeling.backbones.mobilenet import MobileNet
        from official.vision.modeling.classification_model import ClassificationModel

        tf_keras.utils.set_random_seed(0)
        specs = tf_keras.layers.InputSpec(shape=(None, side, side, 3))
        backbone = MobileNet(model_id=model_id, input_specs=specs)
        yield _with_pixels(ClassificationModel(backbone, 1000, specs), side)

    return build


def _efficientnet(kind: str, side: int) -> Callable[[], Iterator[tuple[Any, int]]]:
    def build():
        import tf_keras

        tf_keras.utils.set_random_seed(0)
        make = getattr(tf_keras.applications, kind)
        shape = (side, side, 3)
        model = make(weights=None, input_shape=shape, classifier_activation=None)
        yield _with_pixels(model, side, scale=1.0)  # it has 1/255 inside

    return build


def _with_pixels(model: Any, side: int, scale: float = 1 / 255) -> tuple[Any, int]:
    import tf_keras

    image = tf_keras.Input((side, side, 3), batch_size=1, name="image")
    x = image if scale == 1.0 else tf_keras.layers.Rescaling(scale)(image)
    return tf_keras.Model(image, {"logits": model(x)}), _parameters(model)


def _parameters(model: Any) -> int:
    return int(sum(np.prod(weight.shape) for weight in model.trainable_weights))


def prepare(network: Network, format: str, cache: Path) -> dict[str, Any]:
    """The TFLite files of a network in one of `FORMATS`, converted where they are not there yet.

    int8 is full-integer after training, float32 at both ends.

    Returns:
      `paths`, and, summed over the files: `bytes`, `params`, `macs` (of the graph's convolutions
      and matrix products), `xnnpack_partitions`, `not_delegated`.

    Raises:
      NeasError: when the conversion fails or the folder cannot be written.
    """
    stem = f"{network.name}-{_digest(network)}"
    report = cache / f"{stem}.json"
    if not report.is_file():
        try:
            _convert(network, cache, stem)
        except OSError as error:
            raise NeasError(f"--cache: {str(cache)!r} cannot be written ({error}).") from None
    found = dict(read_json(report, "cache")[format])
    paths = [cache / name for name in found.pop("files")]
    if not all(path.is_file() for path in paths):  # someone tidied up
        report.unlink()
        return prepare(network, format, cache)
    return {"paths": paths, **found}


def is_prepared(network: Network, cache: Path) -> bool:
    """Whether the files are there already."""
    return (cache / f"{network.name}-{_digest(network)}.json").is_file()


def _digest(network: Network) -> str:
    """Twelve characters that change with the network's sources and the libraries."""
    sources = [Path(__file__), Path(project_file("neas_tf", "export", "tflite", "quantizing.py"))]
    if network.family == NEAS:
        sources += sorted(Path(project_file("neas_tf")).rglob("*.py"))
    digest = hashlib.sha256(f"{network.name} {network.size}".encode())
    for path in sources:
        digest.update(path.read_bytes())
    versions = library_versions("tensorflow", "tf-keras", "tf-models-official", "ai-edge-litert")
    digest.update(repr(sorted(versions.items())).encode())
    return digest.hexdigest()[:12]


def _convert(network: Network, cache: Path, stem: str) -> None:
    """Writes the files of all formats, and then the report that says so."""
    from neas_tf.export.checks import random_images
    from neas_tf.export.tflite.inspection import inspect
    from neas_tf.export.tflite.quantizing import convert

    space = dataclasses.replace(SearchSpace(), input_size=network.size)
    images = random_images(space, CALIBRATION_IMAGES)
    files: dict[str, list[Path]] = {format: [] for format in FORMATS}
    parameters = 0
    for number, (model, count) in enumerate(network.build(), 1):
        parameters += count
        with tempfile.TemporaryDirectory() as folder:
            _save(model, folder)
            for format, quantize in zip(FORMATS, ("none", "int8"), strict=True):
                calibration = images if quantize == "int8" else None
                files[format].append(cache / f"{stem}-{number}-{format}.tflite")
                write_bytes_atomic(files[format][-1], convert(folder, quantize, images=calibration))
    macs = sum(map(graph_macs, files["float32"]))
    results = {}
    for format, paths in files.items():
        parts = [inspect(path) for path in paths]
        rest = sum((Counter(part["not_delegated"]) for part in parts), Counter())
        results[format] = {
            "files": [path.name for path in paths],
            "params": parameters,
            "macs": macs,
            "bytes": sum(path.stat().st_size for path in paths),
            "xnnpack_partitions": sum(part["xnnpack_partitions"] for part in parts),
            "not_delegated": dict(rest),
        }
        if format == "int8":
            islands = sum(sum(part["float_islands"].values()) for part in parts)
            results[format]["float_islands"] = islands
    write_json_atomic(cache / f"{stem}.json", results)


def _save(model: Any, folder: str) -> None:
    """Writes a model with a dict of outputs as a SavedModel, the way `neas_tf.export.tflite.quantizing` reads."""
    import tensorflow as tf

    from neas_tf.export.artifacts import SIGNATURE

    module = tf.Module()
    module.variables_of_model = model.variables
    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="image")

    @tf.function(input_signature=[spec])
    def serve(image):
        outputs = model(image, training=False)
        return {name: tf.identity(value, name=name) for name, value in outputs.items()}

    tf.saved_model.save(module, folder, signatures={SIGNATURE: serve})


def caller(paths: Sequence[Path], threads: int = 1) -> Callable[[], Any]:
    """A function that invokes the files once, one after another."""
    from neas_tf.export.tflite.inspection import interpreter

    ready = []
    with native_noise_off():
        for path in paths:
            runner = interpreter(path, threads=threads)
            runner.allocate_tensors()
            image = runner.get_input_details()[0]
            pixels = np.random.default_rng(2).uniform(0, 255, image["shape"])
            runner.set_tensor(image["index"], pixels.astype(image["dtype"]))
            runner.invoke()
            ready.append(runner)
    if len(ready) == 1:
        return ready[0].invoke

    def call():
        for runner in ready:
            runner.invoke()

    return call


def graph_macs(path: Path) -> int:
    """Multiply-accumulates of the convolutions and matrix products of a TFLite file."""
    from neas_tf.export.tflite.inspection import interpreter

    plain = interpreter(path, delegate=False)
    shapes = {t["index"]: [int(side) for side in t["shape"]] for t in plain.get_tensor_details()}
    total = 0
    for op in plain._get_ops_details():
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            # Kernels are (out, h, w, in), (1, h, w, out) and (out, in); maps end in channels.
            kernel, output = (shapes[int(i)] for i in (op["inputs"][1], op["outputs"][0]))
            total += int(np.prod(output[:-1])) * int(np.prod(kernel))
    return total
