"""An f32 bundle with smaller weights: the graphs that are there, reduced and measured against their
own goldens. Neither the folder that was imported nor PyTorch's network is needed."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from safetensors.numpy import load_file

from ..errors import TrainerError
from ..export import one_minus_cosine
from ..reading import of_file, read_json
from .bundle import Bundle, sha256_of
from .graphs import Weights, write_reduced
from .reduce import MOST_ONE_MINUS_COSINE
from .running import open_session, run_onnx


def reduce_bundle(
    source: Path,
    out: Path,
    precision: str,
    towers: tuple[str, ...] = (),
    name: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    most: float = MOST_ONE_MINUS_COSINE,
) -> dict[str, float]:
    """Writes the bundle; the largest 1 - cosine by tower. `towers`: those to reduce, else all; with
    `most` a tower that would lose more stays in f32."""
    manifest = _f32_manifest(source, precision, towers)
    if out.exists():
        raise TrainerError(f"{out} exists: name another folder with --out")
    goldens = load_file(source / manifest["goldens"]["file"])
    errors: dict[str, float] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as part:
        folder = Path(part) / "bundle"
        folder.mkdir()
        data: dict[str, Weights] = {}
        for tower, entry in manifest["towers"].items():
            if "file" not in entry:
                continue
            kept = precision if not towers or tower in towers else "f32"
            say(f"{tower}: {kept}")
            error = _tower(source, folder, tower, entry, goldens, kept, data)
            if kept != "f32" and not error <= most:
                raise TrainerError(
                    f"tower {tower} loses too much in {kept}: 1 - cosine {error:.1e} where "
                    f"{most:g} is allowed; name the towers to reduce with --tower"
                )
            errors[tower] = error
            entry["precision"] = kept
        for weights in data.values():
            weights.close()
        _rest(source, folder, manifest, name or out.resolve().name, errors)
        folder.rename(out)
    return errors


def _f32_manifest(source: Path, precision: str, towers: tuple[str, ...]) -> dict:
    manifest = read_json(source / "manifest.json", "the manifest of a bundle")
    with of_file(source / "manifest.json", "the manifest of a bundle"):
        known = {name: entry for name, entry in manifest["towers"].items() if "file" in entry}
        if manifest["format_version"] != 2:
            raise TrainerError(
                "bundles of MMV are exported in another precision (`export --video-precision`)"
            )
        for name in towers or known:
            if name not in known:
                raise TrainerError(f"{source} has no tower {name}; it has {', '.join(known)}")
            if known[name]["precision"] != "f32":
                raise TrainerError(f"tower {name} is {known[name]['precision']} already")
            if precision not in known[name].get("precisions", []):
                raise TrainerError(
                    f"tower {name} cannot be {precision}: its activations leave that range"
                )
    return manifest


def _tower(
    source: Path, folder: Path, name: str, entry: dict, goldens: dict, precision: str, data: dict
) -> float:
    """One graph; the largest 1 - cosine against the goldens."""
    model = ir.load(source / entry["file"])
    named = {
        value.const_value.location
        for value in model.graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    # The family's file, which its graphs share.
    file = next(iter(sorted(named)), "weights.bin")
    # Opening it empties it.
    if file not in data:
        data[file] = Weights(folder / file)
    weights = data[file]
    path = folder / entry["file"]
    write_reduced(model, path, weights, precision)
    weights.flush()
    session, worst = open_session(path), 0.0
    outputs = list(dict.fromkeys(entry["outputs"].values()))
    for end in _rows(goldens, name, next(iter(entry["inputs"]))):
        feed = {theirs: goldens[f"{name}.{ours}{end}"] for ours, theirs in entry["inputs"].items()}
        got = run_onnx(path, outputs, feed, session)
        for space, output in entry["outputs"].items():
            if not np.isfinite(got[output]).all():
                return float("inf")
            worst = max(worst, one_minus_cosine(got[output], goldens[f"{name}.{space}{end}"]))
    return worst


def _rows(goldens: dict, tower: str, first: str) -> list[str]:
    """The ends of the names of a tower's goldens."""
    if f"{tower}.{first}" in goldens:
        return [""]
    many = 0
    while f"{tower}.{first}.{many}" in goldens:
        many += 1
    return [f".{k}" for k in range(many)]


def _rest(source: Path, folder: Path, manifest: dict, name: str, errors: dict[str, float]) -> None:
    for file in manifest["files"]:
        if not (folder / file).exists() and not file.endswith(".bin"):
            shutil.copyfile(source / file, folder / file)
    if (source / "README.md").is_file():
        shutil.copyfile(source / "README.md", folder / "README.md")
    manifest["name"] = name
    manifest["files"] = {
        path.name: sha256_of(path)
        for path in sorted(folder.iterdir())
        if path.name not in ("README.md", "manifest.json")
    }
    measured = manifest["evaluation"].setdefault("export", {})
    for tower, error in errors.items():
        entry = manifest["towers"][tower]
        measured[tower] = measured.get(tower, {}) | {
            "precision": entry["precision"],
            "bytes": (folder / entry["file"]).stat().st_size,
            "largest_one_minus_cosine": error,
        }
    lossy = [
        error for tower, error in errors.items() if manifest["towers"][tower]["precision"] != "f32"
    ]
    goldens = manifest["goldens"]
    goldens["max_one_minus_cosine"] = Bundle.bound(lossy, goldens["max_one_minus_cosine"])
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
