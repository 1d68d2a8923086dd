"""The origin of a family, as a section of the manifest."""

from pathlib import Path

from .folder import HfFolder
from .parts import Family, Options, Space, Tower

UNKNOWN_LICENSE = "unknown: the folder has no README.md that states one"


def source_of(folder: HfFolder, family: str, languages: list[str] | None = None) -> dict:
    license_file = folder.license_file()
    return {
        "family": family,
        "repository": folder.repository(),
        "revision": folder.revision(),
        "license": folder.license() or UNKNOWN_LICENSE,
        "license_file": license_file,
        "card": folder.card(),
        "languages": languages if languages is not None else folder.languages(),
        "files": folder.source_files(),
    }


def card_facts(folder: HfFolder) -> dict:
    """What else the card's head says of the model's origin and use."""
    return {
        key: folder.front_matter[key]
        for key in ("base_model", "pipeline_tag", "library_name", "datasets")
        if isinstance(folder.front_matter.get(key), str | list)
    }


def family_of(
    folder: HfFolder,
    family: str,
    suffix: str,
    spaces: list[Space],
    towers: list[Tower],
    description: str,
    files: dict[str, bytes],
    options: Options,
    notes: dict | None = None,
) -> Family:
    options.say(f"{folder.path.name}: hashing the source files")
    source = source_of(folder, family)
    copies: dict[str, Path] = {}
    if source["license_file"]:
        copies[source["license_file"]] = folder.path / source["license_file"]
    return Family(suffix, spaces, towers, source, description, files, copies, notes or {})
