"""Exports towers to ONNX files with the weights in one data file per family, each tensor once."""

import hashlib
import logging
import math
import time
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common
import onnxscript.optimizer
import torch
from torch import nn

from ..export import OPSET, one_minus_cosine, strip
from .errors import Refused
from .library import without_checks
from .loading import first_line
from .parts import Feed, Tower, tensors
from .reduce import HALVES, MOST_ONE_MINUS_COSINE, halve, int8
from .rounding import amplified
from .running import open_session, run_onnx

ALIGNMENT = 4096
WORTH_A_SECOND_RUN_SECS = 5.0
INLINE_BYTES = 1024
"""Smaller tensors stay in the graph, where shape inference sees them."""


class Weights:
    """The data file: equal tensors of any graph have one place in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[tuple[str, str], int] = {}
        self.file: BinaryIO = path.open("wb")

    def place(self, values: np.ndarray) -> int:
        """Position of these bytes, which are written on first use."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        key = (str(values.dtype), hashlib.sha256(data).hexdigest())
        if key not in self.places:
            at = -(-self.file.tell() // ALIGNMENT) * ALIGNMENT
            self.file.seek(at)
            self.file.write(data)
            self.places[key] = at
        return self.places[key]

    def flush(self) -> None:
        """What was placed can be read."""
        self.file.flush()

    def close(self) -> bool:
        """Whether anything is in it."""
        self.file.close()
        if not self.places:
            self.path.unlink()
        return bool(self.places)


class Plain(nn.Module):
    """A tower's module whose outputs are f32 and a plain tuple."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = self.module(*inputs)
        out = out if isinstance(out, tuple) else (out,)
        return tuple(vectors.to(torch.float32) for vectors in out)


def write_graph(tower: Tower, folder: Path, weights: Weights) -> Path:
    """Exports one tower with a free batch size; returns its file."""
    path = folder / f"{tower.name}.onnx"
    try:
        model = _exported(tower)
    except Exception as error:
        raise Refused(
            f"the graph of tower {tower.name} could not be exported ({first_line(error)}): "
            "this version of torch, onnxscript or transformers may be too old or too new for it; "
            "install the versions that trainer/pyproject.toml names"
        ) from error
    _adopt_constants(model.graph)
    _fold_layouts(model.graph)
    model.graph.sort()
    write_reduced(model, path, weights, tower.precision)
    return path


def write_reduced(model: ir.Model, path: Path, weights: Weights, precision: str) -> None:
    """Writes a graph with its weights in the precision."""
    if precision in HALVES:
        halve(model.graph, precision)
    if precision == "int8":
        with int8(model) as reduced:
            _write(reduced, path, weights)
    else:
        _write(model, path, weights)


def _write(model: ir.Model, path: Path, weights: Weights) -> None:
    _externalise(model, weights)
    proto = ir.to_proto(model)
    strip(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _exported(tower: Tower) -> ir.Model:
    feed = tower.feeds[0]
    # The exporter takes a size of 1 for a constant.
    example = tuple(_widened(rows) for rows in tensors(feed))
    dims: dict[str, object] = {}
    shapes = []
    for name in feed:
        axes = {0: "batch"} | tower.dynamic.get(name, {})
        shapes.append({at: dims.setdefault(d, torch.export.Dim.DYNAMIC) for at, d in axes.items()})
    for chatty in ("onnxscript", "torch.onnx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad(), without_checks():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Plain(tower.module).eval(),
            example,
            dynamo=True,
            dynamic_shapes=(tuple(shapes),),
            input_names=list(feed),
            output_names=tower.output_names,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
    model = program.model
    _simplify(model)
    for value in model.graph.inputs:
        axes = {0: "batch"} | tower.dynamic.get(value.name, {})
        value.shape = ir.Shape([axes.get(at, size) for at, size in enumerate(value.shape)])
    for value in model.graph.outputs:
        value.shape = ir.Shape(["batch", *list(value.shape)[1:]])
    return model


def _simplify(model: ir.Model) -> None:
    """What the exporter's own optimiser does, without its rewriting rules: they take four fifths
    of its time on a large graph, and ONNX Runtime has the same fusions."""
    common = onnx_ir.passes.common
    common.InlinePass()(model)
    onnxscript.optimizer.fold_constants(model)
    for simplify in (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        simplify(model)


def _widened(rows: torch.Tensor) -> torch.Tensor:
    return rows if len(rows) > 1 else torch.cat([rows, rows])


def _adopt_constants(graph: ir.Graph) -> None:
    """The exporter's rewriting leaves constants behind that belong to no graph."""
    known = {*graph.initializers, *(value.name for value in graph.inputs)}
    for node in graph:
        for value in node.inputs:
            if value is None or value.producer() is not None or value.name in known:
                continue
            if value.const_value is not None:
                graph.initializers.add(value)
                known.add(value.name)


def _fold_layouts(graph: ir.Graph) -> None:
    """Stores a weight as the product wants it: a Transpose or Split at load would give every
    session a copy of its own."""
    for node in list(graph):
        if node.domain or node.op_type not in ("Transpose", "Split"):
            continue
        source = node.inputs[0]
        if source is None or source.name not in graph.initializers or source.const_value is None:
            continue
        parts = _laid_out(node, source.const_value.numpy())
        if parts is None or any(out.is_graph_output() for out in node.outputs):
            continue
        for result, values in zip(node.outputs, parts, strict=True):
            folded = ir.Value(
                name=result.name,
                shape=ir.Shape(values.shape),
                type=ir.TensorType(source.const_value.dtype),
                const_value=ir.Tensor(values, name=result.name),
            )
            result.replace_all_uses_with(folded)
            result.name = f"{folded.name}.was"
            graph.initializers.add(folded)
        graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(name)


def _laid_out(node: ir.Node, values: np.ndarray) -> list[np.ndarray] | None:
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
        return [np.transpose(values, order)]
    sizes = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] else None
    if sizes is None:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    return np.split(values, np.cumsum(sizes.numpy())[:-1], axis=axis)


def _externalise(model: ir.Model, weights: Weights) -> None:
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes <= INLINE_BYTES:
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy().copy(), name=value.name)
            continue
        at = weights.place(tensor.numpy())
        value.const_value = ir.ExternalTensor(
            weights.path.name,
            at,
            tensor.nbytes,
            tensor.dtype,
            shape=tensor.shape,
            name=value.name,
            base_dir=str(weights.path.parent),
        )


def _finite(tower: Tower, got: dict, want: dict) -> None:
    for name in tower.output_names:
        if not (np.isfinite(got[name]).all() and np.isfinite(want[name]).all()):
            raise Refused(
                f"tower {tower.name} gives NaN or infinity: the weights are damaged or not meant "
                "for this configuration; download the folder again"
            )


def proved(tower: Tower, path: Path, wanted: list[dict[str, np.ndarray]]) -> float:
    """The largest 1 - cosine of the file against the reference; refuses what is above the bar, and
    a row that depends on the rows beside it. In f32 the bar is `allowed_error`, or what rounding
    alone does to this network (`rounding.py`), which then becomes the tower's."""
    try:
        onnx.checker.check_model(str(path))
        worst, of = _worst(tower, path, wanted)
        if tower.precision == "f32" and tower.allowed_error < worst <= MOST_ONE_MINUS_COSINE:
            tower.rounding = amplified(path, tower.output_names, of)
    except Refused:
        raise
    except Exception as error:
        raise Refused(
            f"ONNX Runtime cannot run {path.name}: {first_line(error)}. Report it with the "
            "versions of torch, onnxscript and onnxruntime"
        ) from error
    if tower.precision != "f32" and worst > MOST_ONE_MINUS_COSINE:
        raise Refused(
            f"tower {tower.name} loses too much in {tower.precision}: 1 - cosine {worst:.1e} where "
            f"{MOST_ONE_MINUS_COSINE:g} is allowed; import it in f32"
        )
    allowed = max(tower.allowed_error, min(tower.rounding or 0.0, MOST_ONE_MINUS_COSINE))
    if math.isnan(worst) or (tower.precision == "f32" and worst > allowed):
        raise Refused(
            f"tower {tower.name}: ONNX Runtime and PyTorch disagree, 1 - cosine {worst:.1e} "
            f"where {allowed:.0e} is allowed; no bundle is written"
        )
    return worst


def _worst(tower: Tower, path: Path, wanted: list[dict]) -> tuple[float, Feed]:
    """The largest 1 - cosine, and the inputs that have it."""
    session, found = open_session(path), []
    for feed, want in zip(tower.feeds, wanted, strict=True):
        begun = time.monotonic()
        got = run_onnx(path, tower.output_names, feed, session)
        _finite(tower, got, want)
        # The reference was computed row by row, so that rows together give it says they do not
        # touch each other. One by itself is another shape, which costs as much again.
        errors = [one_minus_cosine(got[name], want[name]) for name in tower.output_names]
        if time.monotonic() - begun < WORTH_A_SECOND_RUN_SECS:
            first = {name: rows[:1] for name, rows in feed.items()}
            alone = run_onnx(path, tower.output_names, first, session)
            errors += [one_minus_cosine(alone[n], want[n][:1]) for n in tower.output_names]
        found.append((max(errors), feed))
    nan = [pair for pair in found if math.isnan(pair[0])]
    return nan[0] if nan else max(found, key=lambda pair: pair[0])
