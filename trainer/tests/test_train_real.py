"""The real loop over real files: stopped and resumed, on two ranks, and out to a bundle."""

import json
import os
from dataclasses import replace
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from support import stopped_at
from test_ranks import free_port

from triptych_trainer import train as loop
from triptych_trainer.cli import export, main
from triptych_trainer.cli.train import named_config
from triptych_trainer.config import PRESETS, TrainConfig, from_dict
from triptych_trainer.data import batches
from triptych_trainer.data import export as data_export
from triptych_trainer.data.batches import RealBatches
from triptych_trainer.data.bench import data_cost
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.towers import Content
from triptych_trainer.train import load_checkpoint, losses_of, train


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """HowTo100M and AudioSet, half a batch each."""
    folder = tmp_path_factory.mktemp("mixed")
    ht, audioset = layouts.howto100m(folder / "ht"), layouts.audioset(folder / "as")
    (folder / "ht" / "videos" / "vid3.mp4").write_bytes(b"broken")
    audioset = replace(audioset, weight_video_text=0.0)
    return layouts.tiny_config(folder, ht, audioset)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_resumed_run_equals_an_uninterrupted_one(
    mixed: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(mixed, tmp_path / "whole", tensorboard=True)
    assert list((tmp_path / "whole").glob("events.*"))
    with stopped_at(3, monkeypatch):
        train(mixed, tmp_path / "stopped")
    resumed = train(mixed, tmp_path / "stopped", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    rows = log_of(tmp_path / "whole")
    assert rows[-1]["skipped"] > 0 and rows[-1]["clips_per_sec"] > 0
    assert {"ht.video_text", "ht.video_audio", "as.video_audio"} <= rows[0].keys()
    assert "as.video_text" not in rows[0]
    cfg, _, state = load_checkpoint(tmp_path / "stopped" / "checkpoint.pt")
    assert cfg == mixed and state["words"] == list(layouts.WORDS)


def test_each_dataset_has_its_own_losses(mixed: TrainConfig) -> None:
    """The loss of a mixed batch is the sum over its datasets of what each gives alone, weighted."""
    cfg = replace(mixed, weight_video_audio=10.0)
    batch = RealBatches(cfg)[0]
    batch.pop("skipped")
    # In evaluation mode clips do not see each other through the BatchNorms.
    model = loop.build_model(cfg).eval()
    losses = losses_of(model, batch, cfg)
    ht, audioset = ({k: x[rows] for k, x in batch.items()} for rows in (slice(2), slice(2, 4)))
    alone = replace(cfg, data=replace(cfg.data, sources=cfg.data.sources[:1]))
    first = losses_of(model, ht, alone)
    assert losses["ht.video_audio"].item() == pytest.approx(first["video_audio"].item(), rel=1e-5)
    assert losses["ht.video_text"].item() == pytest.approx(first["video_text"].item(), rel=1e-5)
    second = losses_of(model, audioset, alone)["video_audio"]
    total = first["video_text"] + 10 * (first["video_audio"] + second)
    assert losses["loss"].item() == pytest.approx(total.item(), rel=1e-5)


def test_clips_without_sound_teach_no_sound(mixed: TrainConfig) -> None:
    cfg = replace(mixed, data=replace(mixed.data, sources=mixed.data.sources[:1]))
    batch = RealBatches(cfg)[0]
    batch.pop("skipped")
    batch["audio_mask"] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    model = loop.build_model(cfg).eval()
    before = losses_of(model, batch, cfg)["video_audio"]
    batch["logmel"][1] = 3.0
    assert torch.equal(losses_of(model, batch, cfg)["video_audio"], before)
    batch["logmel"][2] = 3.0
    assert not torch.equal(losses_of(model, batch, cfg)["video_audio"], before)


def test_losses_are_f32_under_bf16(mixed: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert loop.in_bf16(mixed, cuda) and not loop.in_bf16(mixed, cpu)
    assert loop.in_bf16(replace(mixed, precision="bf16"), cuda)
    assert not loop.in_bf16(replace(mixed, precision="f32"), cuda)
    batch = RealBatches(mixed)[0]
    batch.pop("skipped")
    model = loop.build_model(mixed).eval()
    want = losses_of(model, batch, mixed)["loss"]
    monkeypatch.setattr(loop, "in_bf16", lambda *_: True)
    got = losses_of(model, batch, mixed)["loss"]
    assert got.dtype == torch.float32
    assert 0 < abs(got.item() - want.item()) < 0.05 * want.item()


def run_rank(number: int, port: int, out: str, config: dict) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2"}
    train(from_dict(TrainConfig, config), Path(out))


def test_two_ranks_make_the_steps_of_one(mixed: TrainConfig, tmp_path: Path) -> None:
    # Sound begins later: at first DDP has a tower without a gradient.
    cfg = replace(mixed, steps=2, lr=1e-5, audio_from_step=1)
    one = train(cfg, tmp_path / "one")
    args = (free_port(), str(tmp_path / "two"), cfg.to_dict())
    mp.start_processes(run_rank, args, nprocs=2, start_method="spawn")
    rows = zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True)
    for n, (want, got) in enumerate(rows):
        assert want.keys() == got.keys() and want["skipped"] == got["skipped"]
        # Adam turns the noise of f32 sums into steps of its own, so later ones are only near.
        near = 1e-3 if n == 0 else 1e-2
        for name in want:
            if name == "loss" or name.endswith(("video_text", "video_audio", "gradient_norm")):
                assert got[name] == pytest.approx(want[name], rel=near), (n, name)
    two = load_checkpoint(tmp_path / "two" / "checkpoint.pt")[1].state_dict()
    for name, value in one.state_dict().items():
        # No weight can be further away than the steps are long, and few are.
        assert (two[name].float() - value.float()).abs().mean() <= 1e-3, name


def test_ranks_share_the_small_worlds_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loop.WorldBatches(PRESETS["tiny"])
    monkeypatch.setattr(batches, "world_size", lambda: 2)
    shares = []
    for number in range(2):
        monkeypatch.setattr(batches, "rank", lambda number=number: number)
        shares.append(batches.RankShare(whole)[1])
    for name, value in whole[1].items():
        assert torch.equal(torch.cat([share[name] for share in shares]), value)


def test_word_vectors_are_the_table(mixed: TrainConfig, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(layouts.WORDS), 32)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    cfg = replace(mixed, steps=1, data=replace(mixed.data, word_vectors=str(tmp_path / "v.npy")))
    table = train(cfg, tmp_path / "run").text_backbone.words.weight
    assert torch.equal(table[2 : 2 + len(vectors)], torch.from_numpy(vectors))
    np.save(tmp_path / "v.npy", vectors[:, 1:])
    with pytest.raises(ValueError, match="not"):
        train(cfg, tmp_path / "bad")


def test_a_run_of_real_files_becomes_a_bundle(
    mixed: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = data_export.write_bundle

    def text_alone(model: Mmv, out: Path, content: Content) -> dict[str, float]:
        # All three are written in `test_export`; two of them take half a minute.
        assert [k for k, rows in content.inputs.items() if rows is not None] == [
            "video",
            "audio",
            "text",
        ]
        return write(model, out, replace(content, inputs={"text": content.inputs["text"]}))

    monkeypatch.setattr(data_export, "write_bundle", text_alone)
    train(replace(mixed, steps=1), tmp_path / "run")
    export(tmp_path / "run" / "checkpoint.pt", tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["name"] == "tiny-real" and "text" in manifest["towers"]
    assert manifest["training"]["data"] == "ht (howto100m), as (audioset)"
    tokenizer = json.loads((tmp_path / "bundle" / "tokenizer.json").read_text())
    assert tokenizer["model"]["vocab"]["star"] == 2 + layouts.WORDS.index("star")
    for command in ("evaluate", "deflate", "samples"):
        with pytest.raises(SystemExit, match="small world"):
            main([command, "--checkpoint", str(tmp_path / "run" / "checkpoint.pt")])


def test_the_cost_of_data(mixed: TrainConfig) -> None:
    cost = data_cost(replace(mixed, workers=1), 3)
    assert cost.clips == 12 and cost.skipped > 0
    assert cost.clips_per_sec > 0 and cost.cpu_secs_per_clip > 0


def test_options_change_the_configuration_they_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict = {}
    monkeypatch.setattr(loop, "train", lambda cfg, out, **more: told.update(cfg=cfg, out=out))
    path = tmp_path / "mine.toml"
    path.write_text(
        'preset = "mmv-tsm50"\n[[data.sources]]\nname = "a"\nkind = "shards"\nindex = "x"'
    )
    options = ("--batch-size", "64", "--model.spaces", "va", "--data.sources.0.share", "2")
    main(["train", *options, "--config", str(path)])
    cfg, out = told["cfg"], told["out"]
    assert cfg.batch_size == 64 and cfg.model.spaces == "va" and cfg.warmup_steps == 5000
    assert cfg.model.backbone == "tsm" and cfg.data.sources[0].share == 2.0
    assert out == Path("runs/mine")
    with pytest.raises(SystemExit, match="stepz"):
        path.write_text("stepz = 1")
        main(["train", "--config", str(path)])


def test_the_configuration_is_known_before_the_options() -> None:
    assert named_config(["--out", "x", "--config", "mmv-tsm50"]).model.backbone == "tsm"
    assert named_config(["--config=ablation-va"]).model.spaces == "va"
    with pytest.raises(ValueError, match="no configuration"):
        named_config(["--config", "nothing"])
