"""A downloaded model folder: its files, whether they may be read, and its card."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .errors import Refused

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")
CARD_CHARACTERS = 600
LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "NOTICE")


@dataclass
class HfFolder:
    """Only files directly inside `path` are read."""

    path: Path
    hashes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> "HfFolder":
        if not path.is_dir():
            raise Refused(
                f"{path} is not a folder: name the folder of a downloaded model (with config.json "
                "and model.safetensors)"
            )
        folder = cls(path.resolve())
        folder.weight_files()
        return folder

    @cached_property
    def config(self) -> dict:
        return self.json("config.json", needed="it says what the network is")

    @property
    def model_type(self) -> str:
        kind = self.config.get("model_type")
        if not isinstance(kind, str):
            raise Refused(
                f"{self.path / 'config.json'} has no model_type: download the model in the "
                "transformers layout, not that of another library"
            )
        return kind

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def json(self, name: str, needed: str | None = None) -> dict:
        """The object in a file; {} if there is none and it is not `needed`."""
        path = self.path / name
        if not path.is_file():
            if needed is None:
                return {}
            raise Refused(f"{self.path} has no {name} ({needed}): download the whole folder again")
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Refused(
                f"{path} cannot be read as JSON ({error}): download the file again"
            ) from None
        if not isinstance(value, dict):
            raise Refused(f"{path} does not contain a JSON object: download the file again")
        return value

    def weight_files(self) -> list[str]:
        """Names of the safetensors files; refuses pickles, and an index that names what is not
        there."""
        if self.has("model.safetensors.index.json"):
            index = self.json("model.safetensors.index.json")
            named = index.get("weight_map")
            if not isinstance(named, dict) or not named:
                raise Refused(
                    f"{self.path / 'model.safetensors.index.json'} lists no weights "
                    "(weight_map): download the file again"
                )
            files = sorted({str(name) for name in named.values()})
            for name in files:
                if Path(name).name != name or not name.endswith(".safetensors"):
                    raise Refused(
                        f"{self.path / 'model.safetensors.index.json'} names {name!r}, which is "
                        "not a .safetensors file of this folder"
                    )
                if not self.has(name):
                    raise Refused(
                        f"{self.path} lacks {name}, which model.safetensors.index.json lists: "
                        "download the missing part"
                    )
            return files
        if self.has("model.safetensors"):
            return ["model.safetensors"]
        pickled = sorted(f.name for f in self.path.iterdir() if f.suffix in PICKLES)
        if pickled:
            raise Refused(
                f"{self.path} has its weights only as {', '.join(pickled[:3])}. Reading such a "
                "file can run code, so it is not read; download model.safetensors of the same "
                "model (another revision or a re-upload may have it)"
            )
        raise Refused(
            f"{self.path} has no model.safetensors and no model.safetensors.index.json: "
            "download the weights too"
        )

    def hash(self, name: str) -> str:
        if name not in self.hashes:
            with (self.path / name).open("rb") as file:
                self.hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return self.hashes[name]

    def source_files(self) -> dict[str, str]:
        """SHA-256 by name: the weights, and every small file that the import may have read."""
        small = sorted(
            f.name
            for f in self.path.iterdir()
            if f.is_file() and (f.suffix in (".json", ".txt", ".model") or f.name == "README.md")
        )
        return {name: self.hash(name) for name in sorted({*self.weight_files(), *small})}

    @cached_property
    def front_matter(self) -> dict:
        """The card's head; {} if there is none or it is not a mapping."""
        import yaml

        text = self._card_text()
        found = re.match(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", text, re.DOTALL)
        if not found:
            return {}
        try:
            value = yaml.safe_load(found[1])
        except yaml.YAMLError:
            return {}
        return value if isinstance(value, dict) else {}

    def _card_text(self) -> str:
        path = self.path / "README.md"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def license(self) -> str | None:
        """What the card states; `other` is replaced by the name that goes with it."""
        named = self.front_matter.get("license")
        if named == "other":
            named = self.front_matter.get("license_name") or "other"
        if isinstance(named, list):
            named = ", ".join(str(item) for item in named)
        return _spdx(str(named)) if named else None

    def license_file(self) -> str | None:
        return next((name for name in LICENSE_FILES if self.has(name)), None)

    def languages(self) -> list[str]:
        named = self.front_matter.get("language", [])
        named = named if isinstance(named, list) else [named]
        return [str(item) for item in named if isinstance(item, str | int)]

    def card(self) -> str:
        """The first paragraphs of plain prose."""
        text = re.sub(r"\A---\s*\n.*?\n---\s*(\n|\Z)", "", self._card_text(), flags=re.DOTALL)
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        text = re.sub(r"<[^>]+>", " ", text)
        said = []
        for block in re.split(r"\n\s*\n", text):
            lines = [line for line in block.splitlines() if not re.match(r"\s*[#|!>*-]", line)]
            prose = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", " ".join(" ".join(lines).split()))
            if len(prose) > 30:
                said.append(prose.replace("**", "").replace("`", ""))
        whole = " ".join(said)
        if len(whole) <= CARD_CHARACTERS:
            return whole
        cut = whole[:CARD_CHARACTERS]
        return cut[: max(cut.rfind(". ") + 1, CARD_CHARACTERS // 2)].strip()

    def repository(self) -> str | None:
        named = self.config.get("_name_or_path")
        if isinstance(named, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", named):
            return named
        return None

    def revision(self) -> str | None:
        """The commit that the official client noted beside what it downloaded."""
        note = self.path / ".cache" / "huggingface" / "download" / "config.json.metadata"
        if not note.is_file():
            return None
        first = note.read_text(errors="replace").splitlines()[:1]
        return first[0] if first and re.fullmatch(r"[0-9a-f]{40}", first[0]) else None


_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "gemma": "Gemma", "bsd-3-clause": "BSD-3-Clause"}


def _spdx(name: str) -> str:
    name = _SPDX.get(name, name)
    return re.sub(r"^cc-", "CC-", name).upper() if name.startswith("cc-") else name
