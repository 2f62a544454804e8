"""Gradients of depthwise convolutions: the library's operations against `neas_tf.supernet.convolutions`.

    python -m benchmarks.convolution_gradients [--batch=64] [--rounds=7] [--layers=16x144,8x480,4x960]

Prints one JSON object: for every layer (side x channels), kernel and stride the milliseconds of CPU
time of both, in graphs, in turns, on one thread; and the largest difference over the largest value.
"""

from __future__ import annotations

import argparse
import json
import sys

LAYERS = "16x144,8x240,8x480,8x672,4x960"


def main(arguments: list[str]) -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", default=LAYERS, help="side x channels, separated by commas")
    options = parser.parse_args(arguments)
    layers = [tuple(map(int, layer.split("x"))) for layer in options.layers.split(",")]

    import tensorflow as tf

    from benchmarks import timing

    tf.config.threading.set_intra_op_parallelism_threads(1)
    rows = [
        _row(side, channels, kernel, stride, options)
        for side, channels in layers
        for kernel in (3, 5, 7)
        for stride in (1, 2)
    ]
    print(
        json.dumps(
            {
                "benchmark": "convolution_gradients",
                "batch": options.batch,
                "machine": timing.machine(),
                "tensorflow": tf.__version__,
                "rows": rows,
            },
            indent=1,
        )
    )
    return 0


def _row(side: int, channels: int, size: int, stride: int, options) -> dict:
    """One layer, both ways."""
    import numpy as np
    import tensorflow as tf

    from benchmarks import timing
    from neas_tf.supernet import convolutions

    rng = np.random.default_rng(0)
    small = -(-side // stride)

    def draw(*shape):
        return tf.constant(rng.standard_normal(shape), tf.float32)

    x, dy = draw(options.batch, side, side, channels), draw(options.batch, small, small, channels)
    kernel = draw(size, size, channels, 1)

    @tf.function
    def library(x, kernel, dy):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = convolutions.depthwise(x, kernel, stride)
        return tape.gradient(y, [x, kernel], dy)

    @tf.function
    def forward(x, kernel):
        return convolutions.depthwise(x, kernel, stride)

    @tf.function
    def ours(x, kernel, dy):
        return convolutions.depthwise_gradients(x, kernel, stride, dy)

    calls = {
        "library": lambda: library(x, kernel, dy),
        "ours": lambda: ours(x, kernel, dy),
        "forward": lambda: forward(x, kernel),
    }
    differences = [
        float(tf.reduce_max(tf.abs(a - b)) / tf.reduce_max(tf.abs(a)))
        for a, b in zip(library(x, kernel, dy), ours(x, kernel, dy), strict=False)
    ]
    times = timing.interleaved(calls, options.rounds, 1)
    return {
        "layer": f"{side}²x{channels}",
        "kernel": size,
        "stride": stride,
        **{name: timing.spread(values) for name, values in times.items()},
        "library_over_ours": round(timing.ratio(times["library"], times["ours"]), 2),
        "largest_difference": max(differences),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
