"""What the tests of imported folders share: a bundle a family, and its graphs run."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
from safetensors.numpy import load_file

from triptych_trainer.hf.command import import_hf
from triptych_trainer.hf.parts import Options


class Imported:
    """A bundle, with the folder that it came from."""

    def __init__(self, source: Path, out: Path, **options) -> None:
        self.source, self.path = source, out
        self.errors = import_hf([source], out, options=Options(**options))
        self.manifest = json.loads((out / "manifest.json").read_text())
        self.goldens = load_file(out / "goldens.safetensors")
        self.sessions: dict[str, ort.InferenceSession] = {}

    def tower(self, name: str) -> dict:
        return self.manifest["towers"][name]

    def run(self, tower: str, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Vectors by space."""
        entry = self.tower(tower)
        if tower not in self.sessions:
            path = str(self.path / entry["file"])
            self.sessions[tower] = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        given = {entry["inputs"][name]: rows for name, rows in feed.items()}
        outputs = list(dict.fromkeys(entry["outputs"].values()))
        found = dict(zip(outputs, self.sessions[tower].run(outputs, given), strict=True))
        return {space: found[output] for space, output in entry["outputs"].items()}

    def golden_sets(self, tower: str) -> list[tuple[dict, dict]]:
        """(inputs, vectors by space), one for each set of rows."""
        entry = self.tower(tower)
        inputs = list(entry["inputs"])
        ends = [""] if f"{tower}.{inputs[0]}" in self.goldens else None
        if ends is None:
            ends = [f".{k}" for k in range(99) if f"{tower}.{inputs[0]}.{k}" in self.goldens]
        return [
            (
                {name: self.goldens[f"{tower}.{name}{end}"] for name in inputs},
                {space: self.goldens[f"{tower}.{space}{end}"] for space in entry["outputs"]},
            )
            for end in ends
        ]


def one_minus_cosine(got: np.ndarray, want: np.ndarray) -> float:
    a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert a.shape == b.shape
    dots = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return float((1 - dots).max())


def check_bundle(bundle: Imported) -> None:
    """What holds for every family: files, goldens, and rows that differ."""
    manifest = bundle.manifest
    assert manifest["format_version"] == 2
    on_disk = {path.name for path in bundle.path.iterdir()}
    assert on_disk == {*manifest["files"], "manifest.json"}
    assert manifest["sources"][0]["card"].startswith("This card says in one paragraph")
    assert manifest["sources"][0]["languages"] == ["en"]
    sources = manifest["sources"][0]["files"]
    assert "model.safetensors" in sources and "tokenizer.json" in sources
    bank = json.loads((bundle.path / "bank.json").read_text())
    assert 300 <= len(bank["texts"]) == len(set(bank["texts"]))
    dims = {space["name"]: space["dim"] for space in manifest["spaces"]}
    for name, entry in manifest["towers"].items():
        sets = bundle.golden_sets(name)
        assert sum(len(next(iter(feed.values()))) for feed, _ in sets) >= 2
        every: dict[str, list[np.ndarray]] = {}
        for feed, want in sets:
            got = bundle.run(name, feed)
            for space, vectors in want.items():
                assert one_minus_cosine(got[space], vectors) <= 1e-6, (name, space)
                assert vectors.shape[1] == dims[space]
                every.setdefault(space, []).append(vectors)
        for space, found in every.items():
            rows = np.concatenate(found)
            # A tower that gives one vector for everything would pass all else.
            assert one_minus_cosine(rows[:1], rows[1:2]) > 1e-7, (name, space)
        assert entry["precision"] in entry["precisions"]
