"""The commands that measure: what they report is about what they say it is about."""

from dataclasses import replace
from pathlib import Path

import pytest

from triptych_trainer.bench_towers import cases, measure, prepare, table
from triptych_trainer.bench_train import training_cost
from triptych_trainer.config import PRESETS, TINY


def test_training_cost_adds_up_and_counts_the_work() -> None:
    cfg = replace(PRESETS["tiny"], device="cpu")
    cost = training_cost(cfg, steps=2)
    assert cost.clips_per_sec == pytest.approx(cfg.batch_size / cost.secs_per_step)
    assert cost.tflop_per_sec == pytest.approx(cost.clips_per_sec * cost.tflop_per_clip)
    assert cost.peak_memory_gib is None and cost.share_of_bf16 is None
    # Twice the pixels on a side are about four times the work of pictures.
    larger = replace(cfg, model=replace(TINY, crop=64, resize=64))
    assert 2.0 < training_cost(larger, steps=1).tflop_per_clip / cost.tflop_per_clip < 4.0


def test_towers_are_compared_with_pytorch_in_f32(tmp_path: Path) -> None:
    prepare(tmp_path, ("audio",), TINY)
    engines = ("onnxruntime", "eager", "eager-channels-last")
    records = list(measure(tmp_path, cases(("audio",), engines), (1, 2), "cpu"))
    assert len(records) == 2 * 2 * len(engines) and not any("error" in r for r in records)
    for record in records:
        assert record["clips_per_sec"] > 0
        bound = 1e-8 if record["precision"] == "f32" else 1e-2
        assert -1e-12 <= record["one_minus_cosine"] <= bound, record
    halves = [r["one_minus_cosine"] for r in records if r["precision"] == "fp16"]
    assert min(halves) > 1e-8, "fp16 was not computed in fp16"
    assert table(records).count("| audio |") == 2 * len(engines)


def test_what_fails_is_reported_beside_the_rest(tmp_path: Path) -> None:
    prepare(tmp_path, ("audio",), TINY)
    (tmp_path / "audio-fp16-2d.onnx").write_bytes(b"no graph")
    records = list(measure(tmp_path, cases(("audio",), ("onnxruntime",)), (1,), "cpu"))
    assert [("error" in r, r["precision"]) for r in records] == [(False, "f32"), (True, "fp16")]
    assert records[1]["error"] in table(records)
