"""EmbeddingGemma 2 folders against transformers' own processor and model."""

import hf_checkpoints as made
import numpy as np
import pytest
import torch
from hf_bundles import Imported, check_bundle, one_minus_cosine
from test_hf_clip import pictures

from triptych_trainer.hf.folder import HfFolder
from triptych_trainer.hf.gemma_parts import read_patches, read_sound
from triptych_trainer.hf.parts import Options
from triptych_trainer.hf.pictures import gemma_size, patches
from triptych_trainer.hf.reference import processor_of
from triptych_trainer.hf.sounds import tones
from triptych_trainer.hf.texts import GOLDEN_TEXTS, read_text

OPTIONS = Options(window_secs=3.0)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("gemma")
    source = made.embedding_gemma2(folder / "folder")
    return Imported(source, folder / "bundle", window_secs=3.0)


@pytest.fixture(scope="module")
def theirs(gemma: Imported):
    """(vector of processed inputs, processor)."""
    from transformers import EmbeddingGemma2Model

    model = EmbeddingGemma2Model.from_pretrained(
        gemma.source, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor = processor_of(HfFolder.open(gemma.source))

    def vector(**media) -> np.ndarray:
        given = processor(**media, return_tensors="pt")
        allowed = {
            "input_ids", "attention_mask", "pixel_values", "image_position_ids", "input_features",
            "input_features_mask", "pixel_values_videos", "video_position_ids",
            "num_frames_per_video",
        }  # fmt: skip
        given = {name: value for name, value in given.items() if name in allowed}
        if "num_frames_per_video" in given:
            given["num_frames_per_video"] = torch.as_tensor(given["num_frames_per_video"])
        with torch.no_grad():
            return model(**given).last_hidden_state.mean(1).numpy()

    return vector


def test_a_bundle_of_embedding_gemma2(gemma: Imported) -> None:
    check_bundle(gemma)
    assert gemma.manifest["spaces"] == [
        {
            "name": "gemma",
            "dim": 512,
            "dims": [256, 128],
            "members": ["text", "image", "video", "audio"],
        }
    ]
    assert all("f16" not in tower["precisions"] for tower in gemma.manifest["towers"].values())
    text = gemma.tower("text")["preprocessing"]["text"]
    assert text["prompts"] == {
        "query": "task: search result | query: {text}",
        "document": "title: none | text: {text}",
    }
    # Four graphs, one encoder: what f32 makes of the bf16 weights lies in the file about once.
    # Mel filters in f64, masks and tables of positions come on top.
    size = (gemma.path / "weights.bin").stat().st_size
    assert size < 2 * (gemma.source / "model.safetensors").stat().st_size + 600_000


def test_texts_are_those_of_transformers(gemma: Imported, theirs) -> None:
    text = read_text(HfFolder.open(gemma.source), "t", 2048, "none", with_mask=False, words=10**6)
    for said in GOLDEN_TEXTS:
        for role in ("query", "document"):
            prompt = text.prompts[role].replace("{text}", said)
            got = gemma.run("text", text.feed([said], role))["gemma"]
            assert one_minus_cosine(got, theirs(text=[prompt])) <= 1e-6, (role, said)


def test_pictures_are_those_of_transformers(gemma: Imported, theirs) -> None:
    still, _, _ = read_patches(HfFolder.open(gemma.source), 4, 3, OPTIONS)
    for shown in pictures(6, [(100, 60), (60, 333), (48, 48), (20, 900)]):
        cut, grid = patches(still.pixels(shown), 4, 630)
        got = gemma.run("image", {"frames": cut[None], "patch_grid": grid[None]})["gemma"]
        want = theirs(images=[torch.from_numpy(shown).permute(2, 0, 1)])
        assert one_minus_cosine(got, want) <= 1e-6, shown.shape


def test_videos_are_those_of_transformers(gemma: Imported, theirs) -> None:
    """Frames that need no resize: the one of their video processor is torchvision's."""
    _, moving, sampling = read_patches(HfFolder.open(gemma.source), 4, 3, OPTIONS)
    assert sampling == {"rule": "rate", "fps": 1.0, "frames": 3, "take": "on_screen"}
    for height, width in ((96, 96), (60, 144)):
        assert gemma_size(height, width, 4, 630, 12) == (height, width)
        film = np.stack(pictures(7, [(height, width)] * 3))
        cut = [patches(moving.pixels(frame), 4, 630) for frame in film]
        feed = {"frames": np.stack([c[0] for c in cut])[None], "patch_grid": cut[0][1][None]}
        for own in (3, 2, 1):
            shown = torch.from_numpy(film[:own]).permute(0, 3, 1, 2)
            want = theirs(videos=[shown], do_sample_frames=False)
            got = gemma.run("video", feed | {"frame_count": np.array([own])})["gemma"]
            assert one_minus_cosine(got, want) <= 1e-6, own


def test_sounds_are_those_of_transformers(gemma: Imported, theirs) -> None:
    _, sound = read_sound(HfFolder.open(gemma.source), OPTIONS)
    assert (sound.sample_rate_hz, sound.samples, sound.short) == (16_000, 48_000, "zeros")
    for samples in (48_000, 40_000, 12_345, 1_700):
        pcm = tones(1, samples, 16_000)[0]
        feed = {"pcm": sound.padded(pcm)[None], "pcm_samples": np.array([samples])}
        got = gemma.run("audio", feed)["gemma"]
        assert one_minus_cosine(got, theirs(audio=[pcm])) <= 1e-6, samples
