"""The lock file beside a bundle: revision and SHA-256 of every source file.

The first download writes it, and every later one must match it, from any server.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import TrainerError
from .hub import sha256
from .known import Repository

ABOUT = "the sources of the bundle beside this file; later downloads must match"


@dataclass
class Pinned:
    revision: str | None
    files: dict[str, str]
    """SHA-256 by name."""


@dataclass
class Lock:
    path: Path
    license: str | None = None
    """What was accepted."""
    repositories: dict[str, Pinned] = field(default_factory=dict)

    @classmethod
    def beside(cls, bundle: Path) -> "Lock":
        path = bundle.with_name(bundle.name + ".lock.json")
        if not path.exists():
            return cls(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            pinned = {
                name: Pinned(one["revision"], _digests(one["files"]))
                for name, one in content["repositories"].items()
            }
            return cls(path, content.get("license"), pinned)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainerError(
                f"{path} is damaged ({type(error).__name__}: {error}): restore it from a backup, "
                "or delete it to trust the next download"
            ) from None

    def write(self) -> None:
        content = {
            "about": ABOUT,
            "license": self.license,
            "repositories": {
                name: {"revision": one.revision, "files": one.files}
                for name, one in self.repositories.items()
            },
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        part.replace(self.path)

    def expected(self, repository: Repository) -> dict[str, str]:
        """SHA-256 by name, from the table and from the lock."""
        pinned = self.repositories.get(repository.repository)
        return {**(pinned.files if pinned else {}), **(repository.files or {})}

    def revision(self, repository: Repository, asked: str | None) -> str | None:
        """The revision to request."""
        pinned = self.repositories.get(repository.repository)
        locked = pinned.revision if pinned else None
        known = locked or repository.revision
        if asked and locked and asked != locked:
            raise TrainerError(
                f"{self.path} pins {repository.repository} to revision {locked}, but --revision "
                f"is {asked}: delete that file to change the revision, or choose another --out"
            )
        return asked or known

    def damaged(self, repository: Repository, folder: Path) -> list[str]:
        """Files of the folder that are not what is expected; missing ones are not among them."""
        return [
            name
            for name, digest in self.expected(repository).items()
            if (folder / name).is_file() and sha256(folder / name) != digest
        ]

    def check(self, repository: Repository, folder: Path, names: list[str]) -> None:
        """Refuses a file that is not the expected one; notes the files seen for the first time."""
        expected = self.expected(repository)
        before = self.repositories.get(repository.repository)
        if before and (more := sorted(set(names) - set(expected))):
            raise TrainerError(
                f"{folder} has {more[0]}, which {self.path} does not list for "
                f"{repository.repository}: use the files of a single download, or delete that "
                "lock file to trust this one"
            )
        for name in sorted({*names, *expected}):
            if not (folder / name).is_file():
                raise TrainerError(
                    f"{folder} lacks {name} of {repository.repository}, which {self.path} lists: "
                    "download the whole folder again"
                )
            found = sha256(folder / name)
            if expected.get(name, found) != found:
                raise TrainerError(
                    f"{name} of {repository.repository} has changed: expected SHA-256 "
                    f"{expected[name]}, got {found}. Nothing was imported. Use another mirror or "
                    "folder; if the publisher replaced the file and you trust it, delete "
                    f"{self.path}"
                )
            expected[name] = found
        self.repositories[repository.repository] = Pinned(
            before.revision if before else None, dict(sorted(expected.items()))
        )


def _digests(files: dict) -> dict[str, str]:
    for name, digest in files.items():
        if "/" in name or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ValueError(f"{name}: no SHA-256")
    return dict(files)
