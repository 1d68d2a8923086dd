"""Towers of a bundle of format version 1 (MMV) beside those of other families: its graphs as they
are, its preprocessing in the words of version 2, its own goldens."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from .bundle import Bundle, free_name, sha256_of
from .errors import Refused

INPUTS = {"video": "frames", "image": "frames", "audio": "pcm", "text": "token_ids"}
FAMILY = "mmv"


def is_bundle(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def add_bundle(bundle: Bundle, folder: Path, say) -> None:
    """Adds the towers for media that the bundle does not take yet, and the text tower that goes
    with them. Their files are in a folder of their own."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest.get("format_version") != 1:
        raise Refused(
            f"{folder} is a bundle of format version {manifest.get('format_version')}: add the "
            "folder that it was imported from instead"
        )
    _check_files(folder, manifest)
    taken = {tower["modality"] for tower in bundle.towers.values()} - {"text"}
    # A picture tower prepares stills and films alike, so both come from one family.
    if taken & {"video", "image"}:
        taken |= {"video", "image"}
    own = manifest["towers"]
    media = [name for name in ("video", "image", "audio") if name in own and name not in taken]
    if not media:
        raise Refused(f"{folder} adds no modality to those of the other folders")
    members = {space["name"]: set(space["members"]) for space in manifest["spaces"]}
    with_text = any("text" in found and found & set(media) for found in members.values())
    chosen = [*media, *(["text"] if "text" in own and with_text else [])]
    say(f"{folder.name}: taking {', '.join(chosen)}")
    sub = free_name(FAMILY, FAMILY, {name.split("/")[0] for name in bundle.files})
    (bundle.out / sub).mkdir()
    spaces = _spaces(bundle, manifest, set(chosen))
    goldens = load_file(folder / manifest["goldens"]["file"])
    kept: dict[str, str] = {}
    for modality in chosen:
        name = free_name(modality, FAMILY, set(bundle.towers))
        entry = _tower(manifest, modality, sub, spaces)
        if "inflates" not in entry:
            _copy(bundle, folder, own[modality]["file"], sub, kept)
            _goldens(bundle, goldens, modality, name, entry, spaces)
        bundle.towers[name] = entry
        if modality == "text":
            _copy(bundle, folder, manifest["preprocessing"]["text"]["tokenizer"], sub, kept)
            bundle.tower_texts[name] = list(manifest["goldens"]["texts"])
    bundle.allowed = max(bundle.allowed, float(manifest["goldens"]["max_one_minus_cosine"]))
    bundle.sources.append(
        {
            "family": FAMILY,
            "repository": None,
            "revision": None,
            "license": manifest["license"],
            "card": manifest.get("description", ""),
            "languages": ["en"] if "text" in chosen else [],
            "files": {name: manifest["files"][name] for name in kept},
        }
    )
    bundle.descriptions.append(f"{', '.join(chosen)} of {manifest['name']}")


def _check_files(folder: Path, manifest: dict) -> None:
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != wanted:
            raise Refused(f"{path} is missing, or differs from the file in manifest.json")


def _spaces(bundle: Bundle, manifest: dict, chosen: set[str]) -> dict[str, str]:
    """The spaces of the chosen towers, by their old names."""
    names: dict[str, str] = {}
    for space in manifest["spaces"]:
        members = [member for member in space["members"] if member in chosen]
        if members:
            taken = {known["name"] for known in bundle.spaces}
            names[space["name"]] = free_name(space["name"], FAMILY, taken)
            entry = {"name": names[space["name"]], "dim": space["dim"], "members": members}
            bundle.spaces.append(entry)
    return names


def _tower(manifest: dict, modality: str, sub: str, spaces: dict[str, str]) -> dict:
    own = manifest["towers"][modality]
    if "inflates" in own:
        return {"modality": modality, "inflates": own["inflates"]}
    outputs = {spaces[old]: out for old, out in own["outputs"].items() if old in spaces}
    return {
        "modality": modality,
        "file": f"{sub}/{own['file']}",
        "precision": own["precision"],
        "precisions": [own["precision"]],
        "inputs": {INPUTS[modality]: own["input"]["name"]},
        "outputs": outputs,
        "preprocessing": _preprocessing(manifest["preprocessing"], modality, sub),
    }


def _preprocessing(all_of: dict, modality: str, sub: str) -> dict:
    if modality == "audio":
        return {"sound": {**all_of["audio"], "short": "loop"}}
    if modality == "text":
        text = all_of["text"]
        return {
            "text": {
                "kind": "words",
                "tokenizer": f"{sub}/{text['tokenizer']}",
                "max_tokens": text["max_words"],
                "pad_id": text["pad_id"],
                "unknown_id": text["unknown_id"],
            }
        }
    video = all_of["video"]
    of = all_of.get("image", video) if modality == "image" else video
    picture = {
        "resize": {"rule": "shorter_side", "size": of["resize_shorter_side"]},
        "resample": "mmv",
        "crop": {"height": of["crop"], "width": of["crop"]},
        "picture": of.get("picture", "stored"),
        "bars": of.get("bars", "keep"),
    }
    if modality == "image":
        return {"picture": picture}
    rate = {"rule": "rate", "fps": video["fps"], "frames": video["frames"], "take": "nearest"}
    return {"picture": picture, "sampling": rate}


def _goldens(
    bundle: Bundle,
    goldens: dict[str, np.ndarray],
    modality: str,
    name: str,
    entry: dict,
    spaces: dict[str, str],
) -> None:
    (supplied,) = entry["inputs"]
    bundle.goldens[f"{name}.{supplied}"] = goldens[f"{modality}.input"]
    for old, new in spaces.items():
        if new in entry["outputs"]:
            bundle.goldens[f"{name}.{new}"] = goldens[f"{modality}.{old}"]


def _copy(bundle: Bundle, folder: Path, name: str, sub: str, kept: dict[str, str]) -> None:
    target = f"{sub}/{name}"
    (bundle.out / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / name, bundle.out / target)
    bundle.files.append(target)
    kept[name] = target
