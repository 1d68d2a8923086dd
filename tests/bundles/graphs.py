"""The graphs of the small bundles, with random weights from one stream of numbers."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

U8, F32, I64 = TensorProto.UINT8, TensorProto.FLOAT, TensorProto.INT64
RNG = np.random.default_rng(7)


class Weights:
    """One file of weights for several graphs."""

    def __init__(self, name: str):
        self.name, self.bytes, self.placed = name, b"", {}

    def tensor(self, name: str, values: np.ndarray) -> TensorProto:
        if name not in self.placed:
            self.bytes += b"\0" * (-len(self.bytes) % 64)
            self.placed[name] = (len(self.bytes), values)
            self.bytes += values.tobytes()
        offset, values = self.placed[name]
        tensor = TensorProto(
            name=name, data_type=F32, dims=values.shape, data_location=TensorProto.EXTERNAL
        )
        entries = {"location": self.name, "offset": offset, "length": values.nbytes}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def graph(inputs, nodes, outputs, initializers):
    made = helper.make_graph(
        [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes],
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, F32, ["batch", dim]) for name, dim in outputs],
        initializers,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def small(name, values, dtype):
    return numpy_helper.from_array(np.array(values, dtype), name)


def text_graph(weights: Weights, width: int, dim: int, length, prefix: str):
    """The mean of the ids' vectors, without padding, through a matrix."""
    table, head = (
        weights.tensor(f"{prefix}.table", RNG.standard_normal((width, 8), np.float32)),
        weights.tensor(f"{prefix}.head", RNG.standard_normal((8, dim), np.float32)),
    )
    nodes = [
        ("Gather", [f"{prefix}.table", "input_ids"], ["vectors"], {}),
        ("Cast", ["attention_mask"], ["mask"], {"to": F32}),
        ("Unsqueeze", ["mask", "last"], ["mask3"], {}),
        ("Mul", ["vectors", "mask3"], ["kept"], {}),
        ("ReduceSum", ["kept", "axis1"], ["sum"], {"keepdims": 0}),
        ("ReduceSum", ["mask", "axis1"], ["count"], {"keepdims": 1}),
        ("Div", ["sum", "count"], ["mean"], {}),
        ("MatMul", ["mean", f"{prefix}.head"], ["embedding"], {}),
    ]
    constants = [small("last", [2], np.int64), small("axis1", [1], np.int64)]
    shape = ["batch", length or "tokens"]
    inputs = [("input_ids", I64, shape), ("attention_mask", I64, shape)]
    return graph(inputs, nodes, [("embedding", dim)], [table, head, *constants])


def video_graph(weights: Weights, frames: int, side: int, dim: int):
    """The mean colour of each quarter of the frames, through a matrix."""
    head = weights.tensor("video.head", RNG.standard_normal((12, dim), np.float32))
    nodes = [
        ("Cast", ["pixels"], ["values"], {"to": F32}),
        ("Reshape", ["values", "quarters"], ["split"], {}),
        ("ReduceMean", ["split", "axes"], ["means"], {"keepdims": 0}),
        ("Reshape", ["means", "flat"], ["features"], {}),
        ("Sub", ["features", "grey"], ["centred"], {}),
        ("MatMul", ["centred", "video.head"], ["embedding"], {}),
    ]
    half = side // 2
    constants = [
        small("quarters", [-1, frames, 2, half, 2, half, 3], np.int64),
        small("axes", [1, 3, 5], np.int64),
        small("flat", [-1, 12], np.int64),
        small("grey", [100.0], np.float32),
    ]
    return graph(
        [("pixels", U8, ["batch", frames, side, side, 3])],
        nodes,
        [("embedding", dim)],
        [head, *constants],
    )


def sound_graph(weights: Weights, samples, dims: dict[str, int], prefix: str, own: bool):
    """Simple statistics of the samples, through a matrix for each output."""
    heads = [
        weights.tensor(f"{prefix}.{name}", RNG.standard_normal((5, dim), np.float32))
        for name, dim in dims.items()
    ]
    nodes = [
        ("Slice", ["pcm", "one", "end", "axis1"], ["later"], {}),
        ("Slice", ["pcm", "zero", "minus", "axis1"], ["earlier"], {}),
        ("Sub", ["later", "earlier"], ["steps"], {}),
        ("Abs", ["steps"], ["rough"], {}),
        ("Abs", ["pcm"], ["loud"], {}),
        ("ReduceMean", ["loud", "axis1"], ["loudness"], {"keepdims": 1}),
        ("ReduceMean", ["rough", "axis1"], ["roughness"], {"keepdims": 1}),
        ("ReduceMax", ["pcm", "axis1"], ["top"], {"keepdims": 1}),
        ("ReduceMin", ["pcm", "axis1"], ["bottom"], {"keepdims": 1}),
    ]
    inputs = [("pcm", F32, ["batch", samples or "samples"])]
    if own:
        inputs.append(("own", I64, ["batch"]))
        nodes += [
            ("Cast", ["own"], ["count"], {"to": F32}),
            ("Unsqueeze", ["count", "axis1"], ["count2"], {}),
            ("Mul", ["count2", "small"], ["length"], {}),
        ]
    else:
        nodes.append(("Mul", ["loudness", "small"], ["length"], {}))
    nodes.append(
        ("Concat", ["loudness", "roughness", "top", "bottom", "length"], ["features"], {"axis": 1})
    )
    nodes += [("MatMul", ["features", f"{prefix}.{name}"], [name], {}) for name in dims]
    constants = [
        small("one", [1], np.int64),
        small("end", [1 << 40], np.int64),
        small("zero", [0], np.int64),
        small("minus", [-1], np.int64),
        small("axis1", [1], np.int64),
        small("small", [1e-4], np.float32),
    ]
    return graph(inputs, nodes, list(dims.items()), [*heads, *constants])


def patch_graph(weights: Weights, patches: int, patch: int, dim: int):
    """The sum of all patches, scaled by the number of those that the grid says are used."""
    head = weights.tensor("image.head", RNG.standard_normal((patch * patch * 3, dim), np.float32))
    nodes = [
        ("Cast", ["pixels"], ["values"], {"to": F32}),
        ("ReduceSum", ["values", "axis1"], ["sum"], {"keepdims": 0}),
        ("Cast", ["grid"], ["sides"], {"to": F32}),
        ("ReduceProd", ["sides", "axis1"], ["used"], {"keepdims": 1}),
        ("Div", ["sum", "used"], ["mean"], {}),
        ("MatMul", ["mean", "image.head"], ["embedding"], {}),
    ]
    inputs = [("pixels", U8, ["batch", patches, patch * patch * 3]), ("grid", I64, ["batch", 2])]
    return graph(inputs, nodes, [("embedding", dim)], [head, small("axis1", [1], np.int64)])
