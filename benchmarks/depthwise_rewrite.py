"""CPU time of 7×7 depthwise convolutions, as they are and taken apart in several ways.

    python -m benchmarks.depthwise_rewrite [--quantize=none|int8] [--layers=1x14x480,2x56x144]

Prints one JSON object. LiteRT with XNNPACK, one thread, batch 1. All candidates take turns in every
round and the processor's time is counted, so that a busy machine disturbs them alike; `speedup` is
the median over the rounds of the ratio to the candidate `plain`. Whole networks:
`benchmarks.tflite_latency`.

Ways to take a 7×7 kernel apart: `rows`, what the export does (three, three and one row over cropped
and padded inputs); `symmetric`, three, two and two rows about the middle, dilated (stride 1 only);
`dilated`, four kernels of every other row and column (stride 1 only); `blocks`, 5×5, 5×2, 2×5 and
2×2 over a padded input; `quarters`, four 4×4 kernels over differently padded inputs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import numpy as np

from benchmarks import timing

# stride, height = width, channels: the 7×7 layers of NEAS-L at 224².
LAYERS = "1x56x144,1x28x160,1x14x480,1x14x320,1x7x640,1x7x960,2x112x96,2x56x144,2x14x672"
WAYS = {
    1: ("plain", "rows", "symmetric", "dilated", "blocks"),
    2: ("plain", "rows", "quarters", "blocks"),
}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default=LAYERS, help="stride x side x channels, with commas")
    parser.add_argument("--quantize", default="none", choices=("none", "int8"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5, help="invocations in a turn")
    args = parser.parse_args()

    layers = [tuple(map(int, text.split("x"))) for text in args.layers.split(",") if text]
    result: dict[str, Any] = {
        "benchmark": "depthwise_rewrite",
        "quantize": args.quantize,
        "rounds": args.rounds,
        "machine": timing.machine(),
        "versions": _versions(),
        "layers": [_compare_layer(*layer, args) for layer in layers],
    }
    print(json.dumps(result))


def _versions() -> dict[str, str]:
    from neas_tf.ensemble.store import library_versions

    return library_versions("tensorflow", "ai-edge-litert")


def _compare_layer(stride: int, side: int, channels: int, args: Any) -> dict[str, Any]:
    kernel = np.random.default_rng(0).standard_normal((7, 7, channels, 1)).astype(np.float32)
    models = {
        way: _interpreter(_layer(way, stride, side, kernel), args.quantize) for way in WAYS[stride]
    }
    outputs = {way: _run(model) for way, model in models.items()}
    times = _times(models, args.rounds, args.runs)
    return {
        "stride": stride,
        "side": side,
        "channels": channels,
        "ways": {
            way: {
                "ms": round(statistics.median(times[way]), 4),
                "speedup": _ratio(times["plain"], times[way]),
                "max_abs_diff": float(np.max(np.abs(outputs[way] - outputs["plain"]))),
            }
            for way in models
        },
    }


def _layer(way: str, stride: int, side: int, kernel: np.ndarray) -> Any:
    """A tf_keras model of one 7×7 depthwise convolution with bias 0, padded by 3."""
    import tf_keras

    from neas_tf.ensemble.rewrites import depthwise_parts

    layers, channels = tf_keras.layers, kernel.shape[2]
    image = tf_keras.Input((side, side, channels), batch_size=1)
    outputs, weights = [], []

    def add(x, part: np.ndarray, padding: str = "valid", dilation: tuple[int, int] = (1, 1)):
        layer = layers.DepthwiseConv2D(
            part.shape[:2], strides=stride, padding=padding, dilation_rate=dilation
        )
        outputs.append(layer(x))
        weights.append((layer, part))

    def padded(x, rows: tuple[int, int], columns: tuple[int, int]):
        return layers.ZeroPadding2D((rows, columns))(x)

    if way == "plain":
        if stride == 1:
            add(image, kernel, "same")
        else:
            add(padded(image, (3, 3), (3, 3)), kernel)
    elif way == "rows":
        for part in depthwise_parts(7, stride, (side, side)):
            x = image
            if any(part.crop):
                x = layers.Cropping2D((part.crop, (0, 0)))(x)
            add(padded(x, *part.pad), kernel[list(part.rows)])
    elif way == "symmetric":
        for rows, dilation in (((2, 3, 4), 1), ((1, 5), 4), ((0, 6), 6)):
            add(image, kernel[list(rows)], "same", (dilation, 1))
    elif way == "dilated":
        for i in (0, 1):
            for j in (0, 1):
                add(image, kernel[i::2, j::2], "same", (2, 2))
    elif way == "quarters":
        halves = (((0, 4), (3, 0)), ((3, 7), (0, 3)))
        for (top, bottom), rows in halves:
            for (left, right), columns in halves:
                part = kernel[top:bottom, left:right].copy()
                part[: top // 3] = 0  # the middle row and column are in the first halves
                part[:, : left // 3] = 0
                add(padded(image, rows, columns), part)
    else:
        spans, full = ((0, 5), (5, 7)), side + 6
        last = (side - 1) // stride * stride
        whole = padded(image, (3, 3), (3, 3))
        for top, bottom in spans:
            for left, right in spans:
                rows, columns = (top, full - last - bottom), (left, full - last - right)
                x = layers.Cropping2D((rows, columns))(whole)
                add(x, kernel[top:bottom, left:right])
    total = outputs[0]
    for output in outputs[1:]:
        total = layers.Add()([total, output])
    model = tf_keras.Model(image, total)
    for layer, part in weights:
        layer.set_weights([part, np.zeros(channels, np.float32)])
    return model


def _interpreter(model: Any, quantize: str) -> Any:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantize == "int8":
        shape = (1, *model.input_shape[1:])
        rng = np.random.default_rng(1)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: (
            [rng.uniform(0, 1, shape).astype(np.float32)] for _ in range(4)
        )
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    image = np.random.default_rng(2).uniform(0, 1, detail["shape"])
    interpreter.set_tensor(detail["index"], image.astype(np.float32))
    return interpreter


def _times(models: dict[str, Any], rounds: int, runs: int) -> dict[str, list[float]]:
    calls = {name: model.invoke for name, model in models.items()}
    return timing.interleaved(calls, rounds, runs)


def _ratio(above: list[float], below: list[float]) -> float:
    return round(timing.ratio(above, below), 3)


def _run(interpreter: Any) -> np.ndarray:
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


if __name__ == "__main__":
    main()
