"""What an export must pass before it is put in place: same logits, the trunk computed once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common import console
from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import temporary_folder, told
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import literal_path
from neas_tf.ensemble.rewrites import NO_REWRITES, Rewrites, depthwise_parts
from neas_tf.ensemble.store import LoadedInfo, weights_content, weights_digest
from neas_tf.export.artifacts import (
    SIGNATURE,
    check_output,
    describe_export,
    labels_text,
    put_in_place,
)
from neas_tf.export.tflite.inspection import runner
from neas_tf.operators import Operator, operator_steps
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

# Largest difference of logits in float32, as a share of the largest logit where that is above 1:
# float32 has seven digits, whatever the logits' size.
TOLERANCE = 1e-4
# Largest difference between an int8 graph and its emulation in training, as a share of the largest
# logit: rounding is emulated after each operation, but not inside of it.
EMULATION_TOLERANCE = 0.25
# From float pixels (b, h, w, c) in 0..255 to outputs by name.
Runner = Callable[[np.ndarray], dict[str, np.ndarray]]
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "Conv2D", "DepthwiseConv2dNative")


def parity(
    model: Any,
    exported: str | os.PathLike[str] | Runner,
    images: np.ndarray,
    normalisation: Normalisation,
) -> dict[str, Any]:
    """Compares an export with the Keras model that it was made of.

    Args:
      model: tf_keras, trainable form, from normalised images to logits (batch, K, classes).
      exported: `.tflite` or `.keras` file, SavedModel folder, or what runs another one.
      images: (n, h, w, c) in 0..255.
      normalisation: of the model.

    Returns:
      `max_abs_diff` of the ensemble's logits, `max_abs_logit`, number of `examples`, and
      `agreement`: the share of images with the same first class.
    """
    images = np.asarray(images, np.float32)
    check(images.ndim == 4 and len(images) > 0, "images", images.shape, "(n, h, w, c), n ≥ 1")
    expected = _mean_logits(model, images, normalisation)
    logits = predict_exported(exported, images)["logits"]
    return {
        "max_abs_diff": float(np.max(np.abs(logits - expected))),
        "max_abs_logit": float(np.max(np.abs(expected))),
        "examples": len(images),
        "agreement": float(np.mean(logits.argmax(-1) == expected.argmax(-1))),
    }


def predict_exported(
    exported: str | os.PathLike[str] | Runner, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Runs an export on images (n, h, w, c) in 0..255, one by one; outputs (n, classes) by name."""
    run = _runner(exported)
    rows = [run(np.asarray(image[None], np.float32)) for image in images]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def accuracy(
    model: Any,
    exported: str | os.PathLike[str] | Runner,
    test: tuple[np.ndarray, np.ndarray],
    normalisation: Normalisation,
) -> dict[str, Any]:
    """Share of test images whose first class is right, before and after the export.

    `test` are images (n, h, w, c) in 0..255 and labels (n,); the rest is as for `parity`.
    """
    images, labels = test
    check(len(images) == len(labels) > 0, "test", len(labels), "as many images as labels, n ≥ 1")
    before = _mean_logits(model, np.asarray(images, np.float32), normalisation).argmax(-1)
    after = predict_exported(exported, images)["logits"].argmax(-1)
    return {
        "examples": len(labels),
        "keras": float(np.mean(before == labels)),
        "exported": float(np.mean(after == labels)),
        "agreement": float(np.mean(before == after)),
    }


def expected_convolutions(
    architecture: Architecture, space: SearchSpace, rewrites: Rewrites = NO_REWRITES
) -> int:
    """Convolutions of the fused graph, depthwise ones included, with a trunk that runs once."""
    block, head = 4, 2  # SE has two
    split = architecture.split_point
    columns = [(0, architecture.shared), *((split, row[split:]) for row in architecture.paths)]
    total = 1 + (block if space.block_channels else 0) + head * architecture.num_paths
    for first, names in columns:
        for layer, name in zip(space.layers[first:], names, strict=False):
            for step in operator_steps(Operator.parse(name), layer):
                total += 2 if step.kind == "squeeze_excite" else 1
                if rewrites.depthwise and step.kind == "depthwise":
                    parts = depthwise_parts(step.kernel, step.stride, step.in_size)
                    total += max(len(parts) - 1, 0)
    return total


def random_images(space: SearchSpace, count: int = 8, seed: int = 0) -> np.ndarray:
    """Pictures of smooth random colours, uint8 (count, h, w, c), for a parity check without data.

    Noise pixel by pixel is unlike any picture: it can drive a network's activations to where
    float32 rounds by more than the tolerance.
    """
    rng = np.random.default_rng(seed)
    pictures = rng.uniform(0, 255, (count, 7, 7, space.input_channels))  # corners of patches
    for axis, side in ((1, space.input_size[0]), (2, space.input_size[1])):
        position = np.linspace(0, 6, side)
        low = np.minimum(position.astype(int), 5)
        rest = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
        first, second = (np.take(pictures, low + i, axis) for i in (0, 1))
        pictures = first * (1 - rest) + second * rest
    return np.round(pictures).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Job:
    """One export: written, checked and described beside the output, then renamed, or nothing.

    Attributes:
      info: what the model is.
      output: file or folder to write.
      kind: for the report.
      images: (n, h, w, c) in 0..255 for the parity check; None takes smooth random ones.
      tolerance: largest difference of logits that passes, times the largest logit where that is
        above 1; the difference must be finite in any case.
      overwrite: whether an earlier export may be replaced.
      test: images (n, h, w, c) in 0..255 and labels (n,), for the accuracy before and after.
      settings: what else the export depends on, for the report, as JSON.
      rewrites: that the graph has.
      reader: makes what runs the written file, where `predict_exported` cannot by itself.
      before: the model whose accuracy is the one before, where a fine-tuned one is exported.
    """

    info: LoadedInfo
    output: Path
    kind: str
    images: np.ndarray | None = None
    tolerance: float = TOLERANCE
    overwrite: bool = False
    test: tuple[np.ndarray, np.ndarray] | None = None
    settings: Mapping[str, Any] | None = None
    rewrites: Rewrites = NO_REWRITES
    reader: Callable[[Path], Runner] | None = None
    before: Any = None

    def run(
        self, model: Any, write: Callable[[Path], dict[str, Any]], network: Any = None
    ) -> dict[str, Any]:
        """Writes an export, and returns its report.

        Args:
          model: tf_keras, trainable form; what the export must agree with.
          write: writes its argument, and returns its part of the report.
          network: flat graph with fake quantization that the export was converted from.
        """
        check_output(self.output, self.overwrite)
        with console.native_noise_off():
            return self._run(model, write, network)

    def _run(
        self, model: Any, write: Callable[[Path], dict[str, Any]], network: Any
    ) -> dict[str, Any]:
        info, output = self.info, self.output
        images = random_images(info.space) if self.images is None else self.images
        with told(f"export {str(output)!r}"), temporary_folder(output) as folder:
            new = folder / output.name
            found = write(new)
            if "ops" in found:
                self._check_trunk_once(found["ops"])
            exported = self.reader(new) if self.reader else new
            result = parity(model, exported, images, info.normalisation)
            result = self._check_parity(result)
            if network is not None:
                found["emulation"] = self._emulation(network, exported, images)
            before = model if self.before is None else self.before
            found["weights"] = weights_digest(weights_content(before))
            if self.settings is not None:
                found["settings"] = dict(self.settings)
            if self.test is not None:
                found["accuracy"] = accuracy(before, exported, self.test, info.normalisation)
            report = describe_export(info, output, new, self.kind, result, found)
            put_in_place(new, output, report, labels_text(info))
        return report

    def _check_parity(self, result: dict[str, Any]) -> dict[str, Any]:
        """The result with the `tolerance` that held, None without one."""
        difference = result["max_abs_diff"]
        most = self.tolerance * max(1.0, result["max_abs_logit"])
        if not (np.isfinite(difference) and difference <= most):
            raise NeasError(
                f"export {str(self.output)!r}: its logits, of up to {result['max_abs_logit']:.3g}, "
                f"differ from the Keras model's by {difference:.3g}, expected at most {most:.3g}; "
                "nothing was written."
            )
        return {**result, "tolerance": most if np.isfinite(most) else None}

    def _emulation(self, network: Any, exported: Any, images: np.ndarray) -> dict[str, float]:
        """How near the device's integers are to the fake quantization that was trained."""
        expected = network.predict(np.asarray(images, np.float32), verbose=0)
        found = predict_exported(exported, images)["logits"]
        largest = float(np.max(np.abs(expected)))
        difference = float(np.max(np.abs(found - expected)))
        if not difference <= EMULATION_TOLERANCE * largest:
            raise NeasError(
                f"export {str(self.output)!r}: its logits differ from those of the trained graph "
                f"with fake quantization by {difference:.3g}, expected "
                f"{EMULATION_TOLERANCE * largest:.3g}; nothing was written."
            )
        agreement = float(np.mean(found.argmax(-1) == expected.argmax(-1)))
        return {"max_abs_diff": difference, "max_abs_logit": largest, "agreement": agreement}

    def _check_trunk_once(self, ops: dict[str, int]) -> None:
        found = sum(ops.get(name, 0) for name in _CONVOLUTIONS)
        expected = expected_convolutions(self.info.architecture, self.info.space, self.rewrites)
        if found != expected:
            raise NeasError(
                f"export: the graph has {found} convolutions, the ensemble {expected}; nothing "
                "was written."
            )


def _mean_logits(model: Any, images: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    return np.mean(model.predict(normalisation.apply(images), verbose=0), axis=1)


def _runner(exported: str | os.PathLike[str] | Runner) -> Runner:
    if callable(exported):
        return exported
    # Told by what it is: a name may end with anything.
    if os.path.isfile(exported):
        with open(exported, "rb") as stream:
            is_zip = stream.read(4) == b"PK\3\4"
        if is_zip:
            import keras

            model = keras.saving.load_model(str(exported), compile=False)
            return lambda image: {
                name: np.asarray(value) for name, value in model.predict_on_batch(image).items()
            }
    if os.path.isdir(exported):
        import tensorflow as tf

        loaded = tf.saved_model.load(literal_path(exported))
        serve = loaded.signatures[SIGNATURE]

        def run_saved_model(image, _keeps_variables_alive=loaded):
            return {name: value.numpy() for name, value in serve(image=tf.constant(image)).items()}

        return run_saved_model
    return runner(exported)
