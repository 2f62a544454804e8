"""int8 for the network of a detector; what makes boxes of its maps stays float."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")


def behind_the_network(content: bytes) -> list[str]:
    """Names of the tensors of a TFLite file that no convolution depends on: decoding and suppression.

    They go from the outputs back to the last convolutions, whose own are not among them.
    """
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    graph = Interpreter(model_content=content, experimental_op_resolver_type=plain)
    names = {tensor["index"]: tensor["name"] for tensor in graph.get_tensor_details()}
    wanted: set[int] = set()  # by convolutions, directly or not
    behind: list[str] = []
    for op in reversed(graph._get_ops_details()):
        outputs = [int(i) for i in op["outputs"]]
        if op["op_name"] in _CONVOLUTIONS or wanted.intersection(outputs):
            wanted.update(int(i) for i in op["inputs"])
        else:
            behind += [names[i] for i in outputs]
    return behind


def quantize_network(converter: Any) -> bytes:
    """The TFLite file of a `TFLiteConverter`, with int8 weights and maps up to the last convolutions.

    A box's place as one of 256 values, on the square of tiles that suppression works on, is worth
    nothing; hence decoding and suppression are left as they are.
    """
    lite = tf.lite.experimental
    debugger = lite.QuantizationDebugger(converter=converter)
    kept = behind_the_network(debugger.calibrated_model)
    debugger.options = lite.QuantizationDebugOptions(denylisted_nodes=kept)
    return debugger.get_nondebug_quantized_model()
