"""`triptych-trainer import-hf`: folders in, one bundle out, or a sentence."""

import importlib
import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from .bank import given_bank, own_bank
from .bundle import Bundle
from .errors import Refused
from .folder import HfFolder
from .joined import add_bundle, is_bundle
from .parts import Options
from .source import card_facts

FAMILIES = {
    "clip": "clip",
    "siglip": "siglip",
    "siglip2": "siglip2",
    "clap": "clap",
    "pe_audio_video": "pe_audio_video",
    "embedding_gemma2": "embedding_gemma2",
}
"""Module by `model_type`."""
LIBRARIES = ("torch", "transformers", "onnxscript", "onnxruntime", "tokenizers", "timm")


def import_hf(
    folders: list[Path],
    out: Path,
    *,
    name: str | None = None,
    bank: Path | None = None,
    options: Options | None = None,
    license: str | None = None,
    known: dict[Path, dict] | None = None,
) -> dict[str, float]:
    """Writes the bundle; the largest 1 - cosine by tower. `known`: what the manifest says of a
    folder's source that the folder itself does not."""
    options = options or Options()
    bundles = [path for path in folders[1:] if is_bundle(path)]
    opened = [HfFolder.open(path) for path in folders if path not in bundles]
    builders = [_builder(folder) for folder in opened]
    texts = given_bank(bank) if bank else own_bank()
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not empty and not (out / "manifest.json").is_file():
        raise Refused(f"{out} exists and is not a bundle: name another folder with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename: a bundle is whole or not there.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as part:
        bundle = Bundle(Path(part) / "bundle", name or out.resolve().name, options.precision)
        bundle.out.mkdir()
        for folder, build in zip(opened, builders, strict=True):
            options.say(f"{folder.path.name}: reading the weights")
            family = build(folder, options)
            if license:
                family.source["license"] = license
            family.source |= (known or {}).get(folder.path, {})
            bundle.add(family, options.say)
            del family
        for path in bundles:
            add_bundle(bundle, path, options.say)
        bundle.finish(texts, _training(opened))
        if out.exists():
            shutil.rmtree(out)
        (Path(part) / "bundle").rename(out)
    return bundle.errors


def _builder(folder: HfFolder) -> Callable:
    kind = folder.model_type
    if kind in FAMILIES:
        return importlib.import_module(f".{FAMILIES[kind]}", __package__).build
    known = ", ".join(FAMILIES)
    if "auto_map" in folder.config:
        raise Refused(
            f"{folder.path} is of model_type {kind} and contains Python code (auto_map), which is "
            f"never run. Families that can be imported: {known}"
        )
    raise Refused(
        f"{folder.path} is of model_type {kind}, which is not supported. Families that can be "
        f"imported: {known}"
    )


def _training(folders: list[HfFolder]) -> dict:
    return {
        "imported_from": [{"folder": f.path.name, **card_facts(f)} for f in folders],
        "with": {library: version(library) for library in LIBRARIES},
    }


def describe(out: Path) -> str:
    """One line for each important fact."""
    manifest = json.loads((out / "manifest.json").read_text())
    rows = [f"{manifest['name']}: {manifest['description']}", f"licence: {manifest['license']}"]
    rows += [
        f"space {space['name']} ({space['dim']}): {', '.join(space['members'])}"
        for space in manifest["spaces"]
    ]
    return "\n".join(rows)
