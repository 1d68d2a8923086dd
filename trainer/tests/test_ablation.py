"""The ablation's loop and its measures, on towers too small to learn much."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from triptych_trainer.config import PRESETS, TINY
from triptych_trainer.train import build_model
from triptych_trainer.world import ablation


@pytest.fixture
def tiny_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"batch_size": 8, "steps": 2, "workers": 0, "audio_from_step": 0, "text_from_step": 0}
    for name in ablation.VARIANTS:
        preset = PRESETS[f"ablation-{name}"]
        model = replace(TINY, spaces=preset.model.spaces)
        monkeypatch.setitem(PRESETS, f"ablation-{name}", replace(preset, model=model, **small))


def test_every_variant_is_trained_measured_and_kept(
    tiny_variants: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ablation.run(tmp_path, [1, 2], None, 24, 40)
    assert set(record["runs"]) == set(ablation.VARIANTS)
    columns = {name: set(by_seed["1"]) for name, by_seed in record["runs"].items()}
    sound = {"audio shape", "audio motion", "audio->video"}
    seen = {"video motion", "video shape"}
    assert columns["vt"] == seen | {"text->video"}
    assert columns["va"] == seen | sound
    # Text and sound share no space there.
    assert columns["disjoint"] == seen | sound | {"text->video"}
    assert columns["shared"] == columns["fac"] == seen | sound | {"text->video", "text->audio"}
    assert all(0 <= v <= 1 for run in record["runs"]["fac"].values() for v in run.values())
    assert json.loads((tmp_path / "ablation.json").read_text()) == record

    lines = ablation.table(record).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(ablation.VARIANTS)
    assert "±" in lines[2] and lines[2].rstrip(" |").endswith("-")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation, "train", never)
    assert ablation.run(tmp_path, [1, 2], None, 24, 40) == record


def test_features_are_the_backbones_and_vectors_the_heads(tiny_variants: None) -> None:
    cfg = PRESETS["ablation-fac"]
    model, made = build_model(cfg).eval(), ablation.material(0, 3, cfg)
    features, vectors = ablation.embedded(model, made)
    with torch.no_grad():
        video = model.embed_video(torch.from_numpy(made.frames))["coarse"].numpy()
        audio = model.embed_audio_logmel(made.logmel)["fine"].numpy()
    for found, want in ((vectors["video.coarse"], video), (vectors["audio.fine"], audio)):
        cosines = (found * want).sum(1) / np.linalg.norm(want, axis=1)
        assert np.allclose(cosines, 1, atol=1e-6)
    assert features["video"].shape == (3, model.heads.video_fine_0.in_features)
