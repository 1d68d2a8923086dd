"""How much a network amplifies the rounding of f32. PyTorch and ONNX Runtime add up in different
orders, and so do two processors; a network that amplifies such differences has no vectors that are
right to the last digit, and the effect of its own rounding becomes the tolerance of its tower."""

import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..export import one_minus_cosine
from .parts import Feed
from .running import run_onnx

ROUNDING = 2.0**-23
"""Relative size of the last place of an f32."""
PLACES = 4
"""How far a sum of products may lie from the same sum in another order, in last places. Measured:
with 1, a network of random weights that amplifies gave as much as PyTorch and ONNX Runtime differ
by; with 4, twice to five times that."""
SEEDS = (1, 2)


def disturbed(path: Path, out: Path, seed: int) -> None:
    """A copy of a graph in which each product with weights is off by as much as the order of its
    sum may change it. `out` lies in the same folder, for the weights."""
    model = ir.load(path)
    rng = np.random.default_rng(seed)
    for node in list(model.graph):
        width = _width(node)
        if width is None:
            continue
        size, axis_from_end = width
        signs = rng.choice(np.array([-1.0, 1.0]), size)
        factors = (1 + signs * PLACES * ROUNDING).astype(np.float32)
        result = node.outputs[0]
        name = f"{result.name}.rounding"
        shaped = factors.reshape(size, *[1] * axis_from_end)
        noise = ir.Value(
            name=name,
            shape=ir.Shape(shaped.shape),
            type=ir.TensorType(ir.DataType.FLOAT),
            const_value=ir.Tensor(shaped, name=name),
        )
        model.graph.initializers.add(noise)
        factor = ir.Node("", "Mul", [result, noise], name=f"{name}.mul")
        off = factor.outputs[0]
        off.name, off.shape, off.type = f"{name}.out", result.shape, result.type
        uses = [(use.node, use.idx) for use in result.uses() if use.node is not factor]
        for user, index in uses:
            user.replace_input_with(index, off)
        for at, output in enumerate(model.graph.outputs):
            if output is result:
                model.graph.outputs[at] = off
                off.name, result.name = result.name, off.name
        model.graph.insert_after(node, factor)
    ir.save(model, out)


def _width(node: ir.Node) -> tuple[int, int] | None:
    """(outputs of a product with weights, axes behind them)."""
    if node.domain or node.op_type not in ("MatMul", "Gemm", "Conv") or len(node.inputs) < 2:
        return None
    weights = node.inputs[1]
    if weights is None or weights.const_value is None:
        return None
    sizes = [int(size) for size in weights.const_value.shape]
    if node.op_type == "Conv":
        return sizes[0], len(sizes) - 2
    turned = node.op_type == "Gemm" and "transB" in node.attributes
    return (sizes[0] if turned and node.attributes["transB"].as_int() else sizes[-1]), 0


def amplified(path: Path, outputs: list[str], feed: Feed) -> float:
    """The largest 1 - cosine that rounding alone causes in a graph's output."""
    got, worst = run_onnx(path, outputs, feed), 0.0
    for seed in SEEDS:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".onnx") as file:
            other = Path(file.name)
            disturbed(path, other, seed)
            off = run_onnx(other, outputs, feed)
        worst = max([worst, *(one_minus_cosine(off[name], got[name]) for name in outputs)])
    return worst
