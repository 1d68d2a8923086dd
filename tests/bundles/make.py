"""Writes the small bundles of format version 2 that the tests load.

`two-families`: pictures with text in one space, sound with text in another, as when an image model
and a sound model are joined; graphs with two inputs, weights of several graphs in one file beside
them, one output for two spaces.
`odd-inputs`: pictures as patches with their grid, sound and texts of any length.

    python tests/bundles/make.py     # needs onnx, onnxruntime, safetensors and tokenizers
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer

HERE = Path(__file__).parent
TOKENS = HERE.parent / "tokens"
U8, F32, I64 = TensorProto.UINT8, TensorProto.FLOAT, TensorProto.INT64
TEXTS = ["a dog barking", "a red door"]


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


def run(
    folder: Path, file: str, names: dict[str, str], rows: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    return dict(
        zip(
            outputs,
            session.run(outputs, {names[key]: value for key, value in rows.items()}),
            strict=True,
        )
    )


def write(
    name: str,
    manifest: dict,
    graphs: dict,
    weights: Weights,
    golden_rows: dict,
    files: dict[str, Path],
) -> None:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file, model in graphs.items():
        (folder / file).write_bytes(model.SerializeToString())
    (folder / weights.name).write_bytes(weights.bytes)
    for file, source in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copy(source, folder / file)
    if "bank" in manifest:
        (folder / "bank.json").write_text(
            json.dumps({"texts": BANK, "source": "tests", "language": "en"})
        )
    goldens = {}
    for tower, sets in golden_rows.items():
        spec = manifest["towers"][tower]
        for at, rows in enumerate(sets):
            tail = f".{at}" if len(sets) > 1 else ""
            outputs = run(folder, spec["file"], spec["inputs"], rows)
            goldens |= {f"{tower}.{key}{tail}": value for key, value in rows.items()}
            goldens |= {
                f"{tower}.{space}{tail}": outputs[output]
                for space, output in spec["outputs"].items()
            }
    save_file(
        {key: np.ascontiguousarray(value) for key, value in goldens.items()},
        folder / "goldens.safetensors",
    )
    listed = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest["files"] = {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in listed
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    print(name, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), "bytes")


def token_rows(case: str, spec: dict) -> list[dict]:
    """The ids of the golden texts, as the manifest says."""
    tokenizer = Tokenizer.from_file(str(TOKENS / f"{case}.json"))
    tokenizer.enable_truncation(spec["max_tokens"])
    if spec["padding"] == "max":
        tokenizer.enable_padding(length=spec["max_tokens"], pad_id=spec["pad_id"])
    prompt = spec.get("prompts", {}).get("query", "{text}")
    encoded = tokenizer.encode_batch([prompt.replace("{text}", text) for text in TEXTS])
    rows = [(np.array([e.ids], np.int64), np.array([e.attention_mask], np.int64)) for e in encoded]
    if spec["padding"] == "max":
        ids, mask = (np.concatenate(part) for part in zip(*rows, strict=True))
        return [{"token_ids": ids, "attention_mask": mask}]
    return [{"token_ids": ids, "attention_mask": mask} for ids, mask in rows]


RNG = np.random.default_rng(7)
NOUNS = ["dog", "door", "car", "bell", "river", "child", "train", "bird"]
BANK = [f"{a} {noun}" for noun in NOUNS for a in ["a", "a red", "the old", "a small loud"]]
CASES = json.loads((TOKENS / "cases.json").read_text())


def text_tower(case: str, file: str, space: str, **more) -> dict:
    spec = CASES[case]["spec"] | more | {"tokenizer": f"{case}/tokenizer.json", "languages": ["en"]}
    inputs = {"token_ids": "input_ids", "attention_mask": "attention_mask"}
    return {
        "modality": "text",
        "file": file,
        "precision": "f32",
        "precisions": ["f32"],
        "inputs": inputs,
        "outputs": {space: "embedding"},
        "preprocessing": {"text": spec},
    }


def vocabulary(case: str) -> int:
    return Tokenizer.from_file(str(TOKENS / f"{case}.json")).get_vocab_size()


def two_families() -> None:
    weights = Weights("weights.bin")
    text, text_sound = (
        text_tower("clip", "text.onnx", "look"),
        text_tower("gemma", "text-sound.onnx", "sound"),
    )
    picture = {
        "resize": {"rule": "shorter_side", "size": 8},
        "resample": "mmv",
        "crop": {"height": 8, "width": 8},
        "picture": "shown",
        "bars": "keep",
    }
    manifest = {
        "format_version": 2,
        "name": "two-families",
        "description": "Two families in one bundle.",
        "license": "Apache-2.0",
        "sources": [
            {
                "family": "clip",
                "repository": "example/pictures",
                "revision": None,
                "license": "MIT",
                "license_file": None,
                "card": "Pictures and text.",
                "languages": ["en"],
                "files": {},
            },
            {
                "family": "clap",
                "repository": "example/sounds",
                "license": "Apache-2.0",
                "languages": ["en", "de"],
                "files": {},
            },
        ],
        "spaces": [
            {"name": "look", "dim": 8, "dims": [4], "members": ["text", "image", "video"]},
            {"name": "sound", "dim": 6, "members": ["text", "audio"]},
            {"name": "both", "dim": 8, "members": ["video", "audio"]},
        ],
        "towers": {
            "video": {
                "modality": "video",
                "file": "video.onnx",
                "precision": "f32",
                "inputs": {"frames": "pixels"},
                "outputs": {"look": "embedding", "both": "embedding"},
                "preprocessing": {
                    "picture": picture,
                    "sampling": {"rule": "rate", "fps": 2.0, "frames": 2, "take": "nearest"},
                },
            },
            "image": {"modality": "image", "inflates": "video"},
            "audio": {
                "modality": "audio",
                "file": "audio.onnx",
                "precision": "f32",
                "inputs": {"pcm": "pcm"},
                "outputs": {"sound": "sound", "both": "both"},
                "preprocessing": {
                    "sound": {"sample_rate_hz": 16000, "samples": 16000, "short": "loop"}
                },
            },
            "text": text,
            "text-sound": text_sound,
        },
        "bank": {"file": "bank.json", "source": "tests"},
        "goldens": {"file": "goldens.safetensors", "max_one_minus_cosine": 1e-5, "texts": TEXTS},
    }
    graphs = {
        "video.onnx": video_graph(weights, 2, 8, 8),
        "audio.onnx": sound_graph(weights, 16000, {"sound": 6, "both": 8}, "audio", own=False),
        "text.onnx": text_graph(weights, vocabulary("clip"), 8, 77, "text"),
        "text-sound.onnx": text_graph(weights, vocabulary("gemma"), 6, None, "text-sound"),
    }
    goldens = {
        "video": [{"frames": RNG.integers(0, 256, (3, 2, 8, 8, 3), np.uint8)}],
        "audio": [{"pcm": RNG.uniform(-1, 1, (2, 16000)).astype(np.float32)}],
        "text": token_rows("clip", text["preprocessing"]["text"]),
        "text-sound": token_rows("gemma", text_sound["preprocessing"]["text"]),
    }
    files = {f"{case}/tokenizer.json": TOKENS / f"{case}.json" for case in ["clip", "gemma"]}
    write("two-families", manifest, graphs, weights, goldens, files)


def odd_inputs() -> None:
    weights = Weights("weights.bin")
    picture = {
        "resize": {
            "rule": "patches",
            "patch": 4,
            "max_patches": 6,
            "multiple": 4,
            "fit": "siglip2",
        },
        "resample": "bilinear",
        "picture": "shown",
        "bars": "keep",
    }
    text = text_tower("gemma", "text.onnx", "all")
    manifest = {
        "format_version": 2,
        "name": "odd-inputs",
        "license": "Apache-2.0",
        "spaces": [
            {"name": "all", "dim": 8, "dims": [4, 2], "members": ["text", "image", "audio"]}
        ],
        "towers": {
            "image": {
                "modality": "image",
                "file": "image.onnx",
                "precision": "f32",
                "inputs": {"frames": "pixels", "patch_grid": "grid"},
                "outputs": {"all": "embedding"},
                "preprocessing": {"picture": picture},
            },
            "audio": {
                "modality": "audio",
                "file": "audio.onnx",
                "precision": "f32",
                "inputs": {"pcm": "pcm", "pcm_samples": "own"},
                "outputs": {"all": "all"},
                "preprocessing": {
                    "sound": {
                        "sample_rate_hz": 16000,
                        "samples": 16000,
                        "short": "as_is",
                        "multiple": 160,
                        "edge": "reflect",
                    }
                },
            },
            "text": text,
        },
        "goldens": {"file": "goldens.safetensors", "max_one_minus_cosine": 1e-5, "texts": TEXTS},
    }
    graphs = {
        "image.onnx": patch_graph(weights, 6, 4, 8),
        "audio.onnx": sound_graph(weights, None, {"all": 8}, "audio", own=True),
        "text.onnx": text_graph(weights, vocabulary("gemma"), 8, None, "text"),
    }
    sounds = [(3200, 3100), (16000, 16000), (3200, 3200)]
    goldens = {
        "image": [
            {
                "frames": RNG.integers(0, 256, (2, 6, 48), np.uint8),
                "patch_grid": np.array([[2, 3], [1, 5]], np.int64),
            }
        ],
        "audio": [
            {
                "pcm": RNG.uniform(-1, 1, (1, length)).astype(np.float32),
                "pcm_samples": np.array([own], np.int64),
            }
            for length, own in sounds
        ],
        "text": token_rows("gemma", text["preprocessing"]["text"]),
    }
    write(
        "odd-inputs",
        manifest,
        graphs,
        weights,
        goldens,
        {"gemma/tokenizer.json": TOKENS / "gemma.json"},
    )


if __name__ == "__main__":
    two_families()
    odd_inputs()
