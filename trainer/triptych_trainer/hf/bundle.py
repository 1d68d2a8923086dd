"""Families to one bundle of format version 2 (`docs/bundle.md`)."""

import gc
import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from .errors import Refused
from .graphs import Weights, proved, write_graph
from .parts import Family, Tower
from .reduce import check
from .texts import GOLDEN_TEXTS

MAX_ONE_MINUS_COSINE = 1e-5


@dataclass
class Bundle:
    """A bundle in the making, in a folder of its own until it is whole."""

    out: Path
    name: str
    precision: str = "f32"
    spaces: list[dict] = field(default_factory=list)
    towers: dict[str, dict] = field(default_factory=dict)
    sources: list[dict] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)
    goldens: dict[str, np.ndarray] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    inexact: list[float] = field(default_factory=list)
    """What rounding alone does, of the towers that amplify it."""
    measured: dict = field(default_factory=dict)
    tower_texts: dict[str, list[str]] = field(default_factory=dict)
    allowed: float = MAX_ONE_MINUS_COSINE

    def add(self, family: Family, say) -> None:
        """Writes a family's graphs and proves them; the networks are let go in between."""
        self._check_agreement(family)
        self._rename(family)
        first = not self.sources
        suffix = "" if first else f"-{family.suffix}"
        weights = Weights(self.out / f"weights{suffix}.bin")
        wanted: dict[str, list[dict[str, np.ndarray]]] = {}
        for tower in family.towers:
            check(self.precision, tower.precisions, family.source["family"])
            tower.precision = self.precision
            say(f"{tower.name}: reference vectors from PyTorch")
            with torch.no_grad():
                wanted[tower.name] = [tower.reference(feed) for feed in tower.feeds]
            say(f"{tower.name}: exporting the graph")
            write_graph(tower, self.out, weights)
            gc.collect()
        if weights.close():
            self.files.append(weights.path.name)
        family.release()
        gc.collect()
        for tower in family.towers:
            say(f"{tower.name}: ONNX Runtime against PyTorch")
            error = proved(tower, self.out / f"{tower.name}.onnx", wanted[tower.name])
            say(f"{tower.name}: largest 1 - cosine {error:.1e}")
            if tower.rounding is not None:
                say(
                    f"{tower.name}: this network amplifies f32 rounding up to "
                    f"{tower.rounding:.1e}, so its vectors differ by as much between processors"
                )
            self._tower(family, tower, wanted[tower.name], error)
            gc.collect()
        self._rest(family)

    def _check_agreement(self, family: Family) -> None:
        """A clip is prepared once, so all towers of a medium take the same."""
        for tower in family.towers:
            for name, other in self.towers.items():
                if tower.modality == "text" or tower.modality != other["modality"]:
                    continue
                if tower.preprocessing != other["preprocessing"]:
                    raise Refused(
                        f"the {tower.modality} towers of {family.source['family']} and of {name} "
                        "need different preprocessing, but a bundle can preprocess a modality in "
                        "only one way: import them as two bundles"
                    )

    def _rename(self, family: Family) -> None:
        """Names of towers, spaces and files that are taken get the family's suffix."""
        taken = {space["name"] for space in self.spaces}
        for space in family.spaces:
            old = space.name
            space.name = free_name(old, family.suffix, taken)
            for tower in family.towers:
                tower.outputs = {
                    space.name if name == old else name: out for name, out in tower.outputs.items()
                }
        names = {}
        for tower in family.towers:
            names[tower.name] = free_name(tower.name, family.suffix, set(self.towers))
            tower.name = names[tower.name]
        for kept in (family.files, family.copies):
            for name in list(kept):
                new = free_name(name, family.suffix, set(self.files))
                kept[new] = kept.pop(name)
                for tower in family.towers:
                    text = tower.preprocessing.get("text")
                    if text and text["tokenizer"] == name:
                        text["tokenizer"] = new
                if family.source.get("license_file") == name:
                    family.source["license_file"] = new

    def _tower(self, family: Family, tower: Tower, wanted: list[dict], error: float) -> None:
        dims = {space.name: space for space in family.spaces}
        for space, output in tower.outputs.items():
            dims[space].dim = int(wanted[0][output].shape[1])
        self.towers[tower.name] = {
            "modality": tower.modality,
            "file": f"{tower.name}.onnx",
            "precision": tower.precision,
            "precisions": tower.precisions,
            "inputs": {name: name for name in tower.inputs},
            "outputs": tower.outputs,
            "preprocessing": tower.preprocessing,
        }
        self.files.append(f"{tower.name}.onnx")
        many = len(tower.feeds) > 1
        for k, (feed, want) in enumerate(zip(tower.feeds, wanted, strict=True)):
            end = f".{k}" if many else ""
            for name, rows in feed.items():
                self.goldens[f"{tower.name}.{name}{end}"] = rows
            for space, output in tower.outputs.items():
                self.goldens[f"{tower.name}.{space}{end}"] = np.ascontiguousarray(want[output])
        self.errors[tower.name] = error
        self.measured[tower.name] = family.notes.get(tower.modality, {}) | {
            "precision": tower.precision,
            "bytes": (self.out / f"{tower.name}.onnx").stat().st_size,
            "largest_one_minus_cosine": error,
        }
        if tower.rounding is not None:
            self.measured[tower.name]["rounding_one_minus_cosine"] = tower.rounding
            self.inexact.append(tower.rounding)

    @staticmethod
    def bound(lossy: list[float], allowed: float = MAX_ONE_MINUS_COSINE) -> float:
        """What goldens may be off, by the errors of reduced towers: twice the worst, as these give
        other vectors on other processors."""
        return min(0.01, max(allowed, 2 * max(lossy))) if lossy else allowed

    def _rest(self, family: Family) -> None:
        for name, data in family.files.items():
            (self.out / name).write_bytes(data)
            self.files.append(name)
        for name, path in family.copies.items():
            shutil.copyfile(path, self.out / name)
            self.files.append(name)
        self.spaces += [space.manifest() for space in family.spaces]
        self.sources.append(family.source)
        self.descriptions.append(family.description)

    def finish(self, bank: dict, training: dict) -> Path:
        """Goldens, bank, manifest."""
        (self.out / "goldens.safetensors").write_bytes(save(self.goldens))
        (self.out / "bank.json").write_text(
            json.dumps(bank, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        self.files += ["goldens.safetensors", "bank.json"]
        licenses = list(dict.fromkeys(str(source["license"]) for source in self.sources))
        hashes = {name: sha256_of(self.out / name) for name in sorted(self.files)}
        has_text = any(tower["modality"] == "text" for tower in self.towers.values())
        manifest = {
            "format_version": 2,
            "name": self.name,
            "description": ". ".join(self.descriptions),
            "license": " and ".join(licenses),
            "sources": self.sources,
            "spaces": self.spaces,
            "towers": self.towers,
            "bank": {"file": "bank.json", "source": bank["source"]},
            "goldens": {
                "file": "goldens.safetensors",
                "max_one_minus_cosine": self.bound(
                    self.inexact if self.precision == "f32" else list(self.errors.values()),
                    self.allowed,
                ),
                "texts": list(GOLDEN_TEXTS) if has_text else [],
                **({"tower_texts": self.tower_texts} if self.tower_texts else {}),
            },
            "files": hashes,
            "training": training,
            "evaluation": {"export": self.measured},
        }
        path = self.out / "manifest.json"
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
        return path


def free_name(name: str, suffix: str, taken: set[str]) -> str:
    """The name, or the name with the suffix before its extension, or with a number too."""
    if name not in taken:
        return name
    stem, dot, end = name.partition(".")
    for number in range(1, 1000):
        more = suffix if number == 1 else f"{suffix}-{number}"
        if (found := f"{stem}-{more}{dot}{end}") not in taken:
            return found
    raise Refused(f"too many towers are named {name}")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
