"""The table of known models, `known.json`."""

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import TrainerError

TABLE = Path(__file__).with_name("known.json")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Repository:
    """One repository of the hub. What is None is asked of the hub and kept in the lock file."""

    repository: str
    families: tuple[str, ...] = ()
    """The `model_type` that its config.json may have; empty: any that can be imported."""
    revision: str | None = None
    license: str | None = None
    license_note: str = ""
    download_bytes: int | None = None
    """About; the hub says it exactly before anything is loaded."""
    files: dict[str, str] | None = None
    """SHA-256 by name."""


@dataclass(frozen=True)
class Known:
    """A model by its short name: one repository, or several that become one bundle."""

    name: str
    purpose: str
    languages: tuple[str, ...]
    repositories: tuple[Repository, ...]


def table() -> dict[str, Known]:
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["models"]
    return {
        name: Known(
            name,
            row["for"],
            tuple(row["languages"]),
            tuple(
                Repository(**one | {"families": tuple(one["families"])})
                for one in row["repositories"]
            ),
        )
        for name, row in rows.items()
    }


def find(name: str) -> Known:
    """By short name, by the repository of a known model, or any OWNER/REPOSITORY."""
    models = table()
    if name in models:
        return models[name]
    for model in models.values():
        if [one.repository for one in model.repositories] == [name]:
            return model
    if REPOSITORY.fullmatch(name):
        return Known(name.partition("/")[2], "not in the table", (), (Repository(name),))
    near = difflib.get_close_matches(name.lower(), models, n=3, cutoff=0.5)
    near = near or [known for known in models if name.lower() in known][:3]
    meant = f"; did you mean {' or '.join(near)}?" if near else "."
    raise TrainerError(
        f"no known model is called {name!r}{meant} `triptych-trainer pull --list` shows all; any "
        "other repository of the hub can be named as OWNER/NAME"
    )


def size(count: int | None) -> str:
    """Readable size of a number of bytes."""
    if count is None:
        return "size unknown"
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count} bytes"


def listing() -> str:
    lines = []
    for model in table().values():
        sizes = [one.download_bytes for one in model.repositories]
        total = None if None in sizes else sum(sizes)
        about = f"about {size(total)}" if total else "size shown by the hub"
        licenses = " and ".join(dict.fromkeys(str(one.license) for one in model.repositories))
        lines.append(f"{model.name}\n    {model.purpose}")
        lines.append(f"    {licenses}; {about}; languages: {', '.join(model.languages)}")
        lines.append(f"    {' + '.join(one.repository for one in model.repositories)}")
    return "\n".join(lines)
