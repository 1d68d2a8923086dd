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
from graphs import RNG, Weights, patch_graph, sound_graph, text_graph, video_graph
from safetensors.numpy import save_file
from tokenizers import Tokenizer

HERE = Path(__file__).parent
TOKENS = HERE.parent / "tokens"
TEXTS = ["a dog barking", "a red door"]


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
