"""CLAP folders against transformers' own processor and model."""

from pathlib import Path

import hf_checkpoints as made
import numpy as np
import pytest
import torch
from hf_bundles import Imported, check_bundle, one_minus_cosine

from triptych_trainer.hf.clap import LogMel, read_sound
from triptych_trainer.hf.folder import HfFolder
from triptych_trainer.hf.sounds import feature_extractor, tones


@pytest.fixture(scope="module", params=["unfused", "fused"])
def clap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp(request.param)
    source = made.clap(folder / "folder", request.param == "fused")
    return Imported(source, folder / "bundle")


def test_a_bundle_of_clap(clap: Imported) -> None:
    from transformers import ClapModel

    check_bundle(clap)
    assert clap.tower("audio")["preprocessing"]["sound"] == {
        "sample_rate_hz": 48000,
        "samples": 96000,
        "stride_secs": 2.0,
        "short": "repeat_zeros",
    }
    model = ClapModel.from_pretrained(clap.source, dtype=torch.float32).eval()
    extractor = feature_extractor(HfFolder.open(clap.source))
    sound = read_sound(HfFolder.open(clap.source), extractor)
    for samples in (96_000, 40_000, 30_001, 700):
        pcm = tones(1, samples, 48_000)[0]
        given = extractor(pcm, sampling_rate=48_000, return_tensors="pt")
        with torch.no_grad():
            want = model.get_audio_features(
                given["input_features"].float(), given["is_longer"]
            ).pooler_output.numpy()
        got = clap.run("audio", {"pcm": sound.padded(pcm)[None]})["clap"]
        assert one_minus_cosine(got, want) <= 1e-6, samples


def test_the_log_mel_is_the_processors(clap: Imported) -> None:
    extractor = feature_extractor(HfFolder.open(clap.source))
    fused = extractor.truncation == "fusion"
    for pcm in (*tones(2, 96_000, 48_000), np.zeros(96_000, np.float32)):
        want = extractor(pcm, sampling_rate=48_000, return_tensors="np")["input_features"][0, 0]
        got = LogMel(extractor, fused)(torch.from_numpy(pcm[None]))[0, 0].numpy()
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= 1e-5


@pytest.mark.parametrize(("padding", "short"), [("pad", "zeros"), ("repeat", "loop")])
def test_other_rules_for_short_sounds(tmp_path: Path, padding: str, short: str) -> None:
    folder = HfFolder.open(made.clap(tmp_path, padding=padding))
    extractor = feature_extractor(folder)
    sound = read_sound(folder, extractor)
    assert sound.short == short
    pcm = tones(1, 20_000, 48_000)[0]
    want = extractor(pcm, sampling_rate=48_000, return_tensors="np")["input_features"]
    again = extractor(sound.padded(pcm), sampling_rate=48_000, return_tensors="np")
    assert np.array_equal(want, again["input_features"])
