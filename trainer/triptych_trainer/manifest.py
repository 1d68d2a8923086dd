"""`manifest.json` of a bundle (`docs/bundle.md`)."""

import hashlib
import json
from pathlib import Path

from .config import ModelConfig
from .errors import TrainerError
from .models.heads import GRAPHS
from .models.mmv import Mmv
from .reading import of_file, read_json
from .towers import Content, Tower, input_shape

MAX_ONE_MINUS_COSINE = 1e-5
LOOSEST = 0.01
"""The server accepts no bundle that allows itself more."""
PRECISIONS = {"f32": "f32", "fp16": "f16", "int8": "int8"}


def make_manifest(
    model: Mmv, out: Path, content: Content, towers: list[Tower], errors: dict[str, float]
) -> dict:
    cfg, dims = model.cfg, model.space_dims()
    names = [tower.name for tower in towers]
    described = {
        tower.name: {
            "file": f"{tower.name}.onnx",
            "precision": PRECISIONS[tower.precision],
            "input": {
                "name": tower.input,
                "dtype": tower.dtype,
                "shape": [None, *input_shape(tower, cfg)],
            },
            "outputs": {space: space for space in tower.outputs},
        }
        for tower in towers
    }
    if "image" not in names:
        described["image"] = {"inflates": "video"}
    files = [f"{name}.onnx" for name in names]
    files += ["tokenizer.json"] * ("text" in names) + ["goldens.safetensors"]
    loose = {tower.name for tower in towers if tower.precision != "f32"}
    worst = max((e for key, e in errors.items() if key.split(".")[0] in loose), default=0.0)
    if worst > LOOSEST:
        raise TrainerError(
            f"{' and '.join(sorted(loose))}: 1 - cosine up to {worst:.3g} against f32, more than "
            f"the {LOOSEST} a server accepts; choose another precision"
        )
    goldens = {
        "file": "goldens.safetensors",
        # Other processors round otherwise.
        "max_one_minus_cosine": min(LOOSEST, max(MAX_ONE_MINUS_COSINE, 2 * worst)),
        "texts": content.texts if "text" in names else [],
    }
    return {
        "format_version": 1,
        "name": content.name,
        "description": content.description,
        "license": content.license,
        "spaces": spaces_of(cfg.spaces, dims, [*described]),
        "towers": described,
        "preprocessing": preprocessing(cfg, content, names),
        "goldens": goldens,
        "files": {file: hashlib.sha256((out / file).read_bytes()).hexdigest() for file in files},
        "training": content.training,
        "evaluation": content.evaluation,
    }


def spaces_of(graph: str, dims: dict[str, int], towers: list[str]) -> list[dict]:
    """The spaces that two modalities with a tower share. Text leads where it is a member; a
    picture is a member wherever video is. Only FAC's audio reaches the space of text."""
    spaces = []
    for space in GRAPHS[graph]:
        members = [m for m in space.members if m in towers]
        if "video" in members:
            members.append("image")
        if members:
            spaces.append({"name": space.name, "dim": dims[space.name], "members": members})
    return spaces


def choose_bars(bundle: Path, bars: str) -> None:
    """Has a bundle that is there crop black bars, or keep them: towers and goldens stay, its
    ModelId changes."""
    path = bundle / "manifest.json"
    if not path.is_file():
        raise TrainerError(f"{bundle} is not a bundle: it has no manifest.json")
    manifest = read_json(path, "the manifest of a bundle")
    with of_file(path, "the manifest of a bundle"):
        sections = _pictures(manifest)
    if not sections:
        raise TrainerError(f"{bundle} has no tower for pictures")
    for section in sections:
        section["bars"] = bars
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _pictures(manifest: dict) -> list[dict]:
    """The section that defines how pictures are prepared, in either version of the format."""
    if manifest["format_version"] == 1:
        found = [manifest["preprocessing"].get(name) for name in ("video", "image")]
    else:
        towers = manifest["towers"].values()
        found = [tower.get("preprocessing", {}).get("picture") for tower in towers]
    return [section for section in found if section]


def preprocessing(cfg: ModelConfig, content: Content, towers: list[str]) -> dict:
    """A missing section means that there is no such tower."""
    every = {
        "video": {
            "fps": cfg.fps,
            "frames": cfg.frames,
            "resize_shorter_side": cfg.resize,
            "crop": cfg.crop,
            "picture": cfg.picture,
            "bars": cfg.bars,
        },
        "audio": {"sample_rate_hz": cfg.sample_rate_hz, "samples": cfg.samples},
        "text": {
            "tokenizer": "tokenizer.json",
            "max_words": cfg.max_words,
            "pad_id": content.pad_id,
            "unknown_id": content.unknown_id,
        },
    }
    return {name: section for name, section in every.items() if name in towers}
