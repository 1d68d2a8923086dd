"""Graphs with reduced weights: halves behind a Cast, computed in f32, or products in int8."""

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from .errors import Refused

HALVES = {"f16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
WORTH_IT_BYTES = 1024
MOST_ONE_MINUS_COSINE = 0.005
"""Half of what a bundle's goldens may be off at most."""


def check(precision: str, allowed: list[str], family: str) -> None:
    if precision not in allowed:
        raise Refused(
            f"{family} cannot be reduced to {precision}: its activations leave that range. "
            f"Choose --precision {' or '.join(allowed)}"
        )


def halve(graph: ir.Graph, precision: str) -> None:
    """Stores weights in two bytes. ONNX Runtime unfolds them once, when it loads the file."""
    kind = HALVES[precision]
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes <= WORTH_IT_BYTES:
            continue
        stored = ir.Value(
            name=f"{value.name}.{precision}",
            shape=value.shape,
            type=ir.TensorType(kind),
            const_value=ir.Tensor(
                tensor.numpy().astype(kind.numpy()), dtype=kind, name=f"{value.name}.{precision}"
            ),
        )
        cast = ir.node("Cast", [stored], attributes={"to": int(ir.DataType.FLOAT)})
        out = cast.outputs[0]
        out.name, out.shape, out.type = f"{value.name}.full", value.shape, value.type
        value.replace_all_uses_with(out)
        graph.initializers.pop(value.name)
        graph.initializers.add(stored)
        graph.insert_before(graph[0], cast)


@contextmanager
def int8(model: ir.Model):
    """The model with products whose weights are int8 by channel, and whose inputs are quantised as
    they come. Its tensors lie in a folder that ends with the context."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(max(logging.getLogger().level, logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        full, reduced = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
        ir.save(model, full, external_data="f32.data")
        quantize_dynamic(
            full,
            reduced,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )
        yield ir.load(reduced)
