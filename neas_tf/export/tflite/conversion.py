"""From a trained ensemble, or its graph with fake quantization, to the content of a TFLite file."""

from __future__ import annotations

import dataclasses
import gzip
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import told
from neas_tf.ensemble.rewrites import Rewrites
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.artifacts import labels_text
from neas_tf.export.serving import deployed_model, write_saved_model
from neas_tf.export.tflite.inspection import end_details, inspect
from neas_tf.export.tflite.metadata import classifier_metadata
from neas_tf.export.tflite.outputs import (
    DISAGREEMENT,
    FLOAT_TAIL,
    PROBABILITIES,
    needs_paths,
)
from neas_tf.export.tflite.quantizing import INTEGER, convert


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How to convert.

    Attributes:
      info: what the model is.
      rewrites: of the deployed form.
      quantize: one of `quantizing.QUANTIZATIONS`.
      representative: for int8, (n, h, w, c) in 0..255.
      input_type, output_type: of the integer graph's ends.
      outputs: beside the logits, of `outputs.OPTIONAL`.
    """

    info: LoadedInfo
    rewrites: Rewrites
    quantize: str
    representative: np.ndarray | None
    input_type: str
    output_type: str
    outputs: tuple[str, ...] = ()

    def content(self, model: Any, network: Any = None) -> bytes:
        """The TFLite file of a model, with its metadata and class names.

        `network` is its flat graph with fake quantization.
        """
        if network is None:
            network = deployed_model(
                model,
                self.info,
                self.rewrites,
                batch_size=1,
                probabilities=PROBABILITIES in self.outputs,
                paths=needs_paths(self.outputs),
            )
        elif needs_paths(self.outputs):
            from neas_tf.export.quantization_aware import with_path_logits

            network = with_path_logits(network)
        with (
            told("TFLite conversion: the temporary folder"),
            tempfile.TemporaryDirectory() as folder,
        ):
            saved = Path(folder) / "model"
            with console.native_noise_off():
                write_saved_model(network, self.info, saved, 1, self.outputs, gradients=False)
                content = convert(
                    saved,
                    self.quantize,
                    images=self.representative,
                    input_type=self.input_type,
                    output_type=self.output_type,
                    kept=f"{DISAGREEMENT}_of_paths" if DISAGREEMENT in self.outputs else "",
                )
        return classifier_metadata(content, self.info, labels_text(self.info))

    def describe(self, file: Path) -> dict[str, Any]:
        """What a report says about the file.

        Raises:
          NeasError: when a graph that should be all integer is not.
        """
        inputs, outputs = end_details(file)
        inputs[0]["range"] = [0, 255]
        found = inspect(file) | {"inputs": inputs, "outputs": outputs}
        found |= {"quantize": self.quantize, "rewrites": self.rewrites.to_dict()}
        islands = found.pop("float_islands")
        if self.quantize in INTEGER:
            if DISAGREEMENT in self.outputs:  # a few numbers, in float on purpose
                islands = {name: n for name, n in islands.items() if name not in FLOAT_TAIL}
            if islands:
                raise NeasError(f"quantize={self.quantize}: the graph has float islands {islands}.")
            found["float_islands"] = {}
        if self.quantize == "int8":
            assert self.representative is not None  # `convert` has refused
            found["representative_images"] = len(self.representative)
        return found


def gzipped(content: bytes) -> int:
    """Bytes of a file after gzip at its strongest: what a download or an app package counts."""
    return len(gzip.compress(content, 9, mtime=0))
