"""The loop: the schedule, going on after a stop, and refusing a diverged run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support import stopped_at

from triptych_trainer import train as loop
from triptych_trainer.config import PRESETS
from triptych_trainer.export import training_record
from triptych_trainer.train import learning_rate, load_checkpoint, train
from triptych_trainer.world.evaluate import embed_texts
from triptych_trainer.world.heldout import held_out_set

CFG = replace(PRESETS["tiny"], steps=5, checkpoint_every=2, threads=1)


def test_schedule() -> None:
    cfg = replace(CFG, steps=110, warmup_steps=10, lr=1.0)
    assert learning_rate(cfg, 0) == pytest.approx(0.1)
    assert learning_rate(cfg, 9) == learning_rate(cfg, 10) == 1.0
    assert learning_rate(cfg, 60) == pytest.approx(0.5)
    assert learning_rate(cfg, 110) == pytest.approx(0.0)
    # A group that begins later has its own warm-up and ends with the others.
    assert learning_rate(cfg, 49, 50) == 0.0
    assert learning_rate(cfg, 50, 50) == pytest.approx(0.1)
    assert learning_rate(cfg, 85, 50) == pytest.approx(0.5)


def test_audio_learns_only_from_its_step_on(tmp_path: Path) -> None:
    start = {k: v.clone() for k, v in loop.build_model(CFG).state_dict().items()}
    cfg = replace(CFG, steps=2, audio_from_step=2)
    silent = train(cfg, tmp_path).state_dict()
    same = {k for k in start if torch.equal(start[k], silent[k])}
    audio = {k for k in start if k.startswith(("audio_backbone.", "heads.audio_fine."))}
    assert audio <= same
    assert "heads.coarse.weight" not in same and "text_backbone.linear.weight" not in same
    fixed = train(replace(cfg, text_from_step=2), tmp_path).state_dict()
    assert torch.equal(fixed["text_backbone.linear.weight"], start["text_backbone.linear.weight"])


def test_every_parameter_learns_for_one_modality() -> None:
    model = loop.build_model(CFG)
    groups = loop.parameter_groups(model, CFG)
    of = {id(p): name for name, p in model.named_parameters()}
    video, text, audio = ([of[id(p)] for p in group["params"]] for group in groups)
    assert all(n.startswith(("text_backbone.", "heads.text_coarse.")) for n in text)
    assert all(n.startswith(("audio_backbone.", "heads.audio_fine.")) for n in audio)
    learnt = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sorted(video + text + audio) == sorted(learnt)
    # The order is that of the checkpoints' optimizer states.
    assert all(names == [n for n in learnt if n in names] for names in (video, text, audio))


def test_a_module_of_no_modality_stops_the_run() -> None:
    model = loop.build_model(CFG)
    model.reranker = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"reranker\.weight"):
        loop.parameter_groups(model, CFG)
    renamed = loop.build_model(CFG)
    renamed.sound_backbone = renamed.audio_backbone
    del renamed.audio_backbone
    with pytest.raises(AttributeError, match="audio_backbone"):
        loop.parameter_groups(renamed, CFG)


def test_descriptions_start_around_zero() -> None:
    texts = held_out_set(0, 200).captions
    vectors = embed_texts(loop.build_model(CFG).eval(), texts)["text.coarse"]
    assert np.abs((vectors @ vectors.T).mean()) < 0.15


def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(CFG, tmp_path / "whole")
    with stopped_at(3, monkeypatch):
        train(CFG, tmp_path / "stopped")
    assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt")[2]["step"] == 2
    resumed = train(CFG, tmp_path / "stopped", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    cfg, loaded, state = load_checkpoint(tmp_path / "stopped" / "checkpoint.pt")
    assert cfg == CFG and state["step"] == 5 and not loaded.training


def test_bf16_is_for_cuda(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs CUDA"):
        train(replace(CFG, precision="bf16", device="cpu"), tmp_path)


def test_losses_are_f32_whatever_the_towers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "in_bf16", lambda *_: True)
    model, batch = loop.build_model(CFG).train(), loop.WorldBatches(CFG)[2]
    losses = loop.losses_of(model, batch, CFG)
    assert {v.dtype for v in losses.values()} == {torch.float32} and len(losses) == 3


def test_a_run_starts_from_the_weights_of_another(tmp_path: Path) -> None:
    first = train(CFG, tmp_path / "first")
    initial = tmp_path / "first" / "checkpoint.pt"
    cfg = replace(CFG, steps=1, lr=0.0, seed=5)
    second = train(cfg, tmp_path / "second", initial=initial)
    for name, parameter in second.named_parameters():
        assert torch.equal(parameter, first.get_parameter(name)), name
    before = load_checkpoint(tmp_path / "second" / "checkpoint.pt")[2]["before"]
    assert before == {"config": CFG.to_dict(), "step": 5, "before": None}
    record = training_record(cfg, 1, before)
    assert record["initial"] == training_record(CFG, 5) and "initial" not in record["initial"]


def test_training_lowers_the_loss_on_a_batch_it_sees_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = loop.WorldBatches(CFG)[1]
    monkeypatch.setattr(loop.WorldBatches, "__getitem__", lambda self, step: once)
    losses: list[float] = []
    monkeypatch.setattr(
        loop.Log, "step", lambda self, n, values, lr: losses.append(values["loss"].item())
    )
    train(replace(CFG, steps=25, lr=5e-3), tmp_path)
    assert losses[-1] < 0.7 * losses[0]


def test_a_non_finite_loss_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loop.losses_of

    def broken(*args: object) -> dict[str, torch.Tensor]:
        return {name: value * float("nan") for name, value in whole(*args).items()}

    monkeypatch.setattr(loop, "losses_of", broken)
    with pytest.raises(FloatingPointError, match="step 0"):
        train(CFG, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()
