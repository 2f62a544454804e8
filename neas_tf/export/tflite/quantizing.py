"""From a SavedModel to TFLite files in float32, float16, dynamic range and full integer (int8)."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check, unknown_name
from neas_tf.common.paths import literal_path
from neas_tf.export.artifacts import SIGNATURE

QAT = "int8_qat"  # the SavedModel holds the ranges: quantization-aware training has put them there
QUANTIZATIONS = ("none", "float16", "dynamic", "int8", QAT)
INTEGER = ("int8", QAT)
END_TYPES = ("float32", "uint8", "int8")


def check_quantization(
    quantize: str, input_type: str, output_type: str, has_representative: bool
) -> None:
    """Refuses combinations that make no sense, before anything is loaded.

    Raises:
      NeasError: names the option.
    """
    if quantize not in QUANTIZATIONS:
        unknown_name("quantize", quantize, QUANTIZATIONS)
    for field, value in (("input_type", input_type), ("output_type", output_type)):
        if value not in END_TYPES:
            unknown_name(field, value, END_TYPES)
        allowed = f"float32 with quantize={quantize}; integers need quantize=int8 or {QAT}"
        check(quantize in INTEGER or value == "float32", field, value, allowed)
    if quantize == "int8" and not has_representative:
        raise NeasError(
            "representative_dataset: quantize=int8 needs images like those of the application, "
            "from which the ranges of the maps are measured ('run' takes the run's own); noise "
            "will not do."
        )


def convert(
    saved_model: str | os.PathLike[str],
    quantize: str = "none",
    *,
    images: np.ndarray | None = None,
    input_type: str = "float32",
    output_type: str = "float32",
    kept: str = "",
) -> bytes:
    """The TFLite file of the signature `serving_default` of a SavedModel of batch 1.

    Args:
      quantize: `none`; `float16` weights; `dynamic`, int8 weights; `int8`, everything;
        `int8_qat`, everything, for a graph with fake quantization.
      images: representative ones for int8, float32 (n, h, w, c) in 0..255.
      input_type, output_type: of the graph's ends; other than float32 only with int8 and int8_qat.
      kept: with int8, operations whose names hold this stay in float; the ends are float32 then.

    Raises:
      NeasError: for a combination that makes no sense, or a graph that the converter cannot make
        an integer one.
    """
    import tensorflow as tf

    check_quantization(quantize, input_type, output_type, images is not None and len(images) > 0)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        literal_path(saved_model), signature_keys=[SIGNATURE]
    )
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize in INTEGER:
        converter.inference_input_type = getattr(tf, input_type)
        converter.inference_output_type = getattr(tf, output_type)
    if quantize == "int8":
        assert images is not None  # as checked
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = functools.partial(_examples, images)
    try:
        return _partly(converter, kept) if kept and quantize == "int8" else converter.convert()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NeasError(f"quantize={quantize}: the converter failed ({reason}).") from None


def _partly(converter: Any, kept: str) -> bytes:
    """The integer graph but for the operations between tensors whose names hold `kept`."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    debug = tf.lite.experimental
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    options = {"debug_dataset": converter.representative_dataset}
    debugger = debug.QuantizationDebugger(
        converter=converter, debug_options=debug.QuantizationDebugOptions(), **options
    )
    calibrated = Interpreter(model_content=debugger.calibrated_model)
    known = {tensor["index"]: tensor["name"] for tensor in calibrated.get_tensor_details()}
    names = [  # the last one has the name of the graph's output
        known[int(i)]
        for op in calibrated._get_ops_details()
        if any(kept in known.get(int(i), "") for i in (*op["inputs"], *op["outputs"]))
        for i in op["outputs"]
    ]
    debugger.options = debug.QuantizationDebugOptions(denylisted_nodes=names)
    return debugger.get_nondebug_quantized_model()


def _examples(images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """The images, and in the first one a black and a white pixel.

    The input's range is then 0..255 whatever the images, so that a uint8 is the pixel itself.
    """
    for number, image in enumerate(images):
        image = np.array(image[None], np.float32)
        if number == 0:
            image[0, 0, 0], image[0, -1, -1] = 0.0, 255.0
        yield {"image": image}
