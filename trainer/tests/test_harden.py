"""Sounds at other levels and in noise, and a sound network that learns to know them."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from triptych_trainer.config import TINY
from triptych_trainer.errors import TrainerError
from triptych_trainer.export import export_bundle, one_minus_cosine
from triptych_trainer.from_bundle import Served, replace_sound, small_world_network
from triptych_trainer.harden import Disturbed, Hardening, disturbed, harden, quick_log_mel, record
from triptych_trainer.models.audio_frontend import LogMel
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.world.disturbed import at_level, coloured, with_noise

SHIPPED = Path(__file__).parents[2] / "models" / "small-world"


def level_db(pcm: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(pcm, dtype=np.float64)))


def tone(samples: int = 48_000) -> np.ndarray:
    return (0.2 * np.sin(np.arange(samples) * 0.05)).astype(np.float32)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("snr_db", [-3.0, 5.0, 20.0])
def test_noise_has_the_level_that_was_asked_for(snr_db: float, slope: float) -> None:
    pcm = tone()
    noise = with_noise(pcm, snr_db, np.random.default_rng(1), slope) - pcm
    assert level_db(pcm) - level_db(noise) == pytest.approx(snr_db, abs=1e-3)


def test_noise_has_the_colour_that_was_asked_for() -> None:
    for slope in (0.0, 1.0, 2.0):
        power = np.abs(np.fft.rfft(coloured(480_000, slope, np.random.default_rng(2)))) ** 2
        # Bins of 0.1 Hz: 100 to 200 Hz against 1.6 to 3.2 kHz, four octaves above.
        fell_db = 10 * np.log10(power[1000:2000].mean() / power[16_000:32_000].mean())
        assert fell_db == pytest.approx(4 * 3.01 * slope, abs=1.0)


def test_silence_stays_silence() -> None:
    silent = np.zeros(48_000, np.float32)
    rng = np.random.default_rng(3)
    assert not with_noise(silent, 5.0, rng).any() and not at_level(silent, 40.0).any()
    assert all(np.isfinite(disturbed(silent, rng)).all() for _ in range(20))


def test_a_batch_follows_from_its_number() -> None:
    data = Disturbed(Hardening(steps=3, batch_size=6), 9_600)
    one, again, other = data[1], data[1], data[2]
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(*one) and bool((one[1].abs() <= 1).all())


@pytest.mark.parametrize("log", ["log1p10000", "eps1e-6"])
def test_the_quick_spectrogram_is_that_of_the_graph(log: str) -> None:
    front = LogMel(log)
    # Between the partials of a pure tone there is nothing but rounding, whose logarithm differs.
    heard = with_noise(tone(20_000), 20.0, np.random.default_rng(4))
    pcm = torch.from_numpy(np.stack([heard, heard * np.float32(1e-2)]))
    torch.testing.assert_close(quick_log_mel(front, pcm), front(pcm), atol=1e-3, rtol=1e-3)


def test_the_sound_network_learns_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    model = Mmv(TINY).eval()
    before = copy.deepcopy(model)
    losses = harden(
        model, Hardening(steps=30, batch_size=8, lr=2e-3), workers=0, say=lambda _: None
    )
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    changed = {
        name.split(".")[0] + "." + name.split(".")[1]
        for (name, a), b in zip(
            model.state_dict().items(), before.state_dict().values(), strict=True
        )
        if not torch.equal(a, b)
    }
    assert changed and all(name.startswith(("audio_backbone.", "heads.audio_")) for name in changed)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle that ships, without its films."""
    folder = tmp_path_factory.mktemp("shipped") / "bundle"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("samples"))
    return folder


def test_the_network_of_a_bundle_computes_what_its_graph_does(shipped: Path) -> None:
    goldens = load_file(shipped / "goldens.safetensors")
    with torch.no_grad():
        found = small_world_network(shipped).embed_audio(torch.from_numpy(goldens["audio.input"]))
    for space, vectors in found.items():
        assert one_minus_cosine(vectors.numpy(), goldens[f"audio.{space}"]) <= 1e-9


def test_a_replaced_sound_tower_is_a_whole_bundle(shipped: Path) -> None:
    model = small_world_network(shipped)
    with torch.no_grad():
        model.heads.audio_fine.bias.add_(0.5)
    before = load_file(shipped / "goldens.safetensors")
    replace_sound(shipped, model, record(Hardening(steps=1)))
    goldens = load_file(shipped / "goldens.safetensors")
    served = Served(shipped)
    for name, embed in (("audio", served.embed_audio), ("video", served.embed_video)):
        found = embed(torch.from_numpy(goldens[f"{name}.input"]))
        for space, vectors in found.items():
            key = f"{name}.{space}"
            assert one_minus_cosine(vectors.numpy(), goldens[key]) <= 1e-6
            assert np.array_equal(goldens[key], before[key]) == (name == "video")
    manifest = json.loads((shipped / "manifest.json").read_text())
    assert manifest["training"]["sound"]["steps"] == 1


def test_only_bundles_of_the_small_world_can_be_taught(tmp_path: Path) -> None:
    export_bundle(Mmv(TINY).eval(), tmp_path, "tiny", {"data": "films of others"}, {})
    with pytest.raises(TrainerError, match="small world"):
        small_world_network(tmp_path)
    export_bundle(Mmv(TINY).eval(), tmp_path, "tiny", {"data": "procedural world"}, {})
    with pytest.raises(TrainerError, match="of this size"):
        small_world_network(tmp_path)
