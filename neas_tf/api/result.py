"""What a search gives back: the model, its numbers, and where they are."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neas_tf.common import console
from neas_tf.common.errors import NeasError, check, fail
from neas_tf.common.files import read_json
from neas_tf.common.paths import resolve_user_path
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble.store import RUN_MODEL, LoadedInfo, load_model, read_info

if TYPE_CHECKING:
    from neas_tf.cost.cost_table import Cost
    from neas_tf.space.architecture import Architecture
    from neas_tf.space.search_space import SearchSpace

_ENDINGS = {".tflite": "tflite", ".keras": "keras", "": "saved_model"}
_IMAGES = 256  # that int8 ranges are measured on


class Result:
    """A finished run, as `neas.search` and `neas.load` return it; parts are read when asked for.

    Attributes:
      model_dir: folder of the run.
      accuracy: of the ensemble on the test images, 0..1.
      path_accuracies: of each path alone.
      class_names: in the order of the model's outputs.
    """

    def __init__(self, model_dir: str | os.PathLike[str]):
        folder = Path(resolve_user_path(os.fspath(model_dir))).absolute()
        results = folder / "retrain" / "results.json"
        if not folder.is_dir():
            raise NeasError(f"model_dir: there is no folder {str(folder)!r}.")
        if not results.is_file() or not (folder / RUN_MODEL).is_dir():
            raise NeasError(
                f"model_dir: {str(folder)!r} holds no retrained model; expected the folder of a "
                "finished run (the call or command that began it continues it)."
            )
        self.model_dir = folder
        self._info: LoadedInfo = read_info(folder / RUN_MODEL)
        tested = read_json(results, "results")
        self.accuracy: float = tested["ensemble_accuracy"]
        self.path_accuracies: list[float] = list(tested["path_accuracies"])
        self.class_names = self._info.class_names

    def __repr__(self) -> str:
        paths = f"{self.architecture.num_paths} paths, split after {self.architecture.split_point}"
        return (
            f"<neas Result: accuracy {self.accuracy:.2%}, {self.cost.macs:,} MACs, "
            f"{self.cost.params:,} parameters, {paths}; {self.model_dir}>"
        )

    @property
    def architecture(self) -> Architecture:
        """The ensemble that was found."""
        return self._info.architecture

    @property
    def space(self) -> SearchSpace:
        """The space that it was found in."""
        return self._info.space

    @functools.cached_property
    def cost(self) -> Cost:
        """MACs and parameters; `latency_ns` where the search had a latency table."""
        path = self.model_dir / "search" / "latency_table.json"
        latency = None
        if path.is_file():
            from neas_tf.cost.latency_table import load_table

            latency = load_table(str(path), "latency_table")
        return CostTable(self.space, latency).cost(self.architecture)

    @functools.cached_property
    def model(self) -> Any:
        """`keras.Model`: pixels 0..255 (batch, h, w, c) in, probabilities (batch, classes) out."""
        from neas_tf.applications import ensemble_model

        return ensemble_model(self.model_dir)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Every candidate that the search has scored, in its order; [] where nothing was searched."""
        path = self.model_dir / "search" / "history.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]

    @property
    def report(self) -> Path:
        """The page with pictures and numbers, `report.html`."""
        return self.model_dir / "report" / "report.html"

    @property
    def plan(self) -> dict[str, Any]:
        """What was decided for the user, and why; {} for a run that `neas.search` did not begin."""
        path = self.model_dir / "plan.json"
        return read_json(path, "plan") if path.is_file() else {}

    def export(
        self,
        path: str | os.PathLike[str],
        quantize: str = "none",
        overwrite: bool = False,
        outputs: Sequence[str] = (),
        calibrated: bool = False,
    ) -> Path:
        """Writes the ensemble as one file or folder, and checks it against the Keras model.

        Args:
          path: ends with `.tflite` or `.keras`; without an ending a SavedModel's folder.
          quantize: of a `.tflite`: none, float16, dynamic or int8, whose ranges are measured on
            training images of the run.
          overwrite: replaces an earlier export there.
          outputs: beside the logits, of probabilities (not of int8), disagreement and path_logits;
            none are the default, probabilities. Not of a `.keras` (docs/uncertainty.md).
          calibrated: divides the logits by the temperature that `retrain.calibrate` has fitted.

        Returns:
          The path; beside it lie the report `.json`, the `.labels.txt` and the model card
          `README.md`; beside somebody else's README.md it is `<name>.README.md`.

        Raises:
          NeasError: for another ending, quantization or output, something else at the path, a model
            without a temperature, or an export that does not agree with the model.
        """
        from neas_tf.export import formats
        from neas_tf.export.model_card import write_card
        from neas_tf.export.tflite.outputs import check_calibrated, check_outputs
        from neas_tf.export.tflite.quantizing import check_quantization

        target = Path(resolve_user_path(os.fspath(path))).absolute()
        kind = _ENDINGS.get(target.suffix)
        if kind is None:
            fail("path", os.fspath(path), "a name that ends with .tflite or .keras, or no ending")
        options: dict[str, Any] = {}
        if kind == "tflite":
            trained = ("none", "float16", "dynamic", "int8")
            check(quantize in trained, "quantize", quantize, f"one of {', '.join(trained)}")
            check_quantization(quantize, "float32", "float32", quantize == "int8")
            options["quantize"] = quantize
            if quantize == "int8":
                from neas_tf.export.images import representative_images

                options["representative"] = representative_images(
                    "run", self._info, _IMAGES, model_dir=str(self.model_dir)
                )
        else:
            check(quantize == "none", "quantize", quantize, f"'none' for a {kind} export")
        if kind == "keras":
            check(
                not outputs, "outputs", outputs, "none for a .keras, which has logits as they are"
            )
            check(not calibrated, "calibrated", calibrated, "False for a .keras")
        else:
            check(not isinstance(outputs, str), "outputs", outputs, "a list of names")
            check_outputs(outputs, self._info.architecture.num_paths, quantize)
            if calibrated:
                check_calibrated(self._info)
            options |= {"outputs": tuple(outputs)} if outputs else {}
            options["calibrated"] = calibrated
        model, info = load_model(self.model_dir / RUN_MODEL)
        exporter = getattr(formats, f"export_{kind}")
        report = exporter(model, info, target, overwrite=overwrite, **options)
        card = write_card(target.parent, info, report["weights"], self.model_dir, [target])
        console.say(f"Model card: {card}")
        return target


def load(model_dir: str | os.PathLike[str]) -> Result:
    """The result of a finished run, of `neas.search` or of the command `neas train`.

    Raises:
      NeasError: for a folder that holds none.
    """
    return Result(model_dir)
