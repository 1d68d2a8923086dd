"""Imported bundles with smaller weights, made of the bundle alone, and what is measured of them."""

import hashlib
import json
from pathlib import Path

import hf_checkpoints as made
import numpy as np
import onnxruntime as ort
import pytest
from hf_bundles import Imported, one_minus_cosine
from safetensors.numpy import load_file

from triptych_trainer.bench_cpu import cpu_secs_of_towers
from triptych_trainer.bench_cpu import table as towers_table
from triptych_trainer.bench_family import described, milliseconds_of, rate_of, table, texts
from triptych_trainer.errors import TrainerError
from triptych_trainer.hf.reduced import reduce_bundle


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("clip")
    return Imported(made.clip(folder / "folder"), folder / "bundle", frames=2)


@pytest.mark.parametrize("precision", ["f16", "bf16", "int8"])
def test_a_reduced_bundle_is_whole_and_near(clip: Imported, precision: str, tmp_path: Path) -> None:
    out = tmp_path / "less"
    errors = reduce_bundle(clip.path, out, precision)
    manifest = json.loads((out / "manifest.json").read_text())
    assert {path.name for path in out.iterdir()} == {*manifest["files"], "manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest, name
    size = lambda folder: sum(f.stat().st_size for f in folder.glob("*.bin"))  # noqa: E731
    assert size(out) < 0.8 * size(clip.path)
    goldens = load_file(out / "goldens.safetensors")
    for name, entry in manifest["towers"].items():
        assert entry["precision"] == precision and 0 < errors[name] <= 0.005
        said = manifest["evaluation"]["export"][name]
        assert said["largest_one_minus_cosine"] == errors[name] and said["precision"] == precision
        if name == "image":
            session = ort.InferenceSession(str(out / entry["file"]))
            got = session.run(None, {"frames": goldens["image.frames"]})[0]
            assert one_minus_cosine(got, goldens["image.clip"]) == pytest.approx(
                errors[name], rel=0.5
            )
    assert manifest["goldens"]["max_one_minus_cosine"] >= max(1e-5, 2 * max(errors.values()))


def test_one_tower_alone_can_be_reduced(clip: Imported, tmp_path: Path) -> None:
    errors = reduce_bundle(clip.path, tmp_path / "out", "int8", ("text",))
    towers = json.loads((tmp_path / "out" / "manifest.json").read_text())["towers"]
    assert {name: tower["precision"] for name, tower in towers.items()} == {
        "video": "f32", "image": "f32", "text": "int8",
    }  # fmt: skip
    assert errors["video"] <= 1e-6 < errors["text"]


def test_what_cannot_be_reduced_is_a_sentence(clip: Imported, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="has no tower sound; it has video, image, text"):
        reduce_bundle(clip.path, tmp_path / "out", "f16", ("sound",))
    with pytest.raises(TrainerError, match="loses too much in int8"):
        reduce_bundle(clip.path, tmp_path / "out", "int8", most=1e-9)
    reduce_bundle(clip.path, tmp_path / "half", "f16")
    with pytest.raises(TrainerError, match="is f16 already"):
        reduce_bundle(tmp_path / "half", tmp_path / "out", "f16")
    with pytest.raises(TrainerError, match="name another folder"):
        reduce_bundle(clip.path, tmp_path / "half", "f16")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_towers_are_timed_at_every_batch(clip: Imported) -> None:
    rows = cpu_secs_of_towers(clip.path, (1, 2))
    assert [(row["tower"], row["batch"]) for row in rows] == [
        (tower, batch) for tower in ("video", "image", "text") for batch in (1, 2)
    ]
    assert all(row["cpu_secs"] > 0 for row in rows)
    assert towers_table({"clip": rows}).count("\n| clip |") == len(rows)


def test_queries_are_all_different_and_timed(clip: Imported) -> None:
    assert len(set(texts(50))) == 50
    asked: list[str] = []
    p50, p95 = milliseconds_of(asked.append, texts(10))
    assert asked == texts(10) and 0 <= p50 <= p95
    assert rate_of(asked.append, ["a", "b"], 0.05) > 100
    record = described(clip.path) | {"text_p50_ms": 12.3}
    assert record["disk_mib"] >= 0 and set(record["precision"].values()) == {"f32"}
    assert "| bundle | 12.3 |" in table([record])
    assert np.isfinite(max(record["one_minus_cosine"].values()))
