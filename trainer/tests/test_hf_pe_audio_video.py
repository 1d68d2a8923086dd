"""PE-AV folders against transformers' own processors and model."""

import hf_checkpoints as made
import numpy as np
import pytest
import torch
from hf_bundles import Imported, check_bundle, one_minus_cosine

from triptych_trainer.hf.folder import HfFolder
from triptych_trainer.hf.parts import Options
from triptych_trainer.hf.pe_audio_video import frames_of
from triptych_trainer.hf.pictures import read_picture
from triptych_trainer.hf.sounds import Sound, feature_extractor, tones
from triptych_trainer.hf.texts import GOLDEN_TEXTS, read_text


@pytest.fixture(scope="module")
def pe(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("pe")
    return Imported(made.pe_audio_video(folder / "folder", 4), folder / "bundle")


def test_a_bundle_of_pe_av(pe: Imported) -> None:
    check_bundle(pe)
    members = {space["name"]: space["members"] for space in pe.manifest["spaces"]}
    assert members == {
        "video-audio": ["video", "image", "audio"],
        "video-text": ["text", "video", "image"],
        "audio-text": ["text", "audio"],
    }
    sampling = pe.tower("video")["preprocessing"]["sampling"]
    assert sampling == {"rule": "spread", "frames": 4, "window_secs": 10.0}
    sound = pe.tower("audio")["preprocessing"]["sound"]
    assert (sound["short"], sound["multiple"], sound["edge"]) == ("as_is", 1920, "reflect")


def test_its_vectors_are_those_of_the_whole_model(pe: Imported) -> None:
    """The model's one forward pass over film, sound and text, as its card shows it."""
    from transformers import AutoProcessor, PeAudioVideoModel

    model = PeAudioVideoModel.from_pretrained(pe.source, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(pe.source)
    extractor = feature_extractor(HfFolder.open(pe.source))
    picture = read_picture(HfFolder.open(pe.source), processor.video_processor)
    rng = np.random.default_rng(5)
    film = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    pcm = tones(1, 30_000, 48_000)[0]
    videos = processor.video_processor(
        [torch.from_numpy(film).permute(0, 3, 1, 2)], return_tensors="pt", num_frames=4,
        do_sample_frames=True, video_metadata=[{"total_num_frames": 9, "fps": 3.0}],
    )  # fmt: skip
    sounds = extractor([pcm], sampling_rate=48_000, return_tensors="pt")
    text = read_text(HfFolder.open(pe.source), "t", 8192, "none", with_mask=False, words=10**6)
    feed = text.feed([GOLDEN_TEXTS[1]])
    with torch.no_grad():
        want = model(
            input_ids=torch.from_numpy(feed["token_ids"]),
            pixel_values_videos=videos["pixel_values_videos"],
            input_values=sounds["input_values"],
            padding_mask=sounds["padding_mask"],
        )
    at = [i * 8 // 3 for i in range(4)]
    frames = np.stack([picture.pixels(film[i]) for i in at])[None]
    got = pe.run("video", {"frames": frames})
    assert one_minus_cosine(got["video-text"], want.video_embeds) <= 1e-6
    assert np.array_equal(got["video-text"], got["video-audio"])
    sound = Sound(48_000, 480_000, "as_is", 1920, "reflect")
    got = pe.run("audio", {"pcm": sound.padded(pcm)[None]})
    assert one_minus_cosine(got["audio-text"], want.audio_embeds) <= 1e-6
    got = pe.run("text", feed)
    assert one_minus_cosine(got["audio-text"], want.text_audio_embeds) <= 1e-6
    assert one_minus_cosine(got["video-text"], want.text_video_embeds) <= 1e-6
    still = np.repeat(frames[:, :1], 4, 1)
    got = pe.run("image", {"frames": still[:, 0]})["video-text"]
    assert one_minus_cosine(got, pe.run("video", {"frames": still})["video-text"]) <= 1e-9


def test_frames_of_checkpoints_of_all_frames() -> None:
    said: list[str] = []
    folder = HfFolder(made.Path("pe-av-large"))
    free, fixed = type("P", (), {"num_frames": None}), type("P", (), {"num_frames": 16})
    assert frames_of(free, folder, Options(say=said.append)) == 16
    assert frames_of(free, folder, Options(frames=250, say=said.append)) == 250
    assert "any number of frames" in said[0]
    assert frames_of(fixed, folder, Options(say=said.append)) == 16 and len(said) == 2
    assert frames_of(fixed, folder, Options(frames=8, say=said.append)) == 8
    assert "trained with 16 frames" in said[2]
