"""Scenes written to real files and read back by the bundle's rule."""

from pathlib import Path

import numpy as np
import pytest
import torch

from triptych_trainer.config import SMALL_WORLD
from triptych_trainer.heldout import held_out_set, tensors
from triptych_trainer.media import MediaError, clips_of, decode
from triptych_trainer.models.audio_frontend import LogMel
from triptych_trainer.world.files import write_video, write_wav
from triptych_trainer.world.render import render
from triptych_trainer.world.scene import scene_of
from triptych_trainer.world.sound import synthesise


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    scenes = [scene_of(8, i) for i in range(2)]
    path = tmp_path / f"two{suffix}"
    write_video(path, scenes, size=(112, 96), fps=25)
    clips = clips_of(path, SMALL_WORLD)
    assert [(c.start_secs, c.end_secs) for c in clips] == [(0.0, 3.2), (3.2, 6.4)]
    for scene, clip in zip(scenes, clips, strict=True):
        assert clip.frames.shape == (8, 64, 64, 3) and clip.pcm.shape == (153_600,)
        # The decoder shows the last frame before the middle of each step.
        times = np.arange(8) / 2.5 + 0.16
        away = np.abs(clip.frames.astype(float) - render(scene, times, 64)).mean()
        assert away < 8.0
        assert _spectral_distance(clip.pcm, synthesise(scene, 0.0, 153_600)) < 0.6


def _spectral_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of the log-mels, where there is anything to hear."""
    with torch.no_grad():
        both = LogMel()(torch.from_numpy(np.stack([a, b])))[..., 0]
    loud = both[1] > both[1].max() - 4
    return float((both[0] - both[1]).abs()[loud].mean())


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, [scene_of(8, 2)], secs_each=0.8, size=(64, 64))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_short_tail_mute_and_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_video(path, [scene_of(8, 3)], secs_each=1.2, size=(64, 64))
    (clip,) = clips_of(path, SMALL_WORLD)
    assert np.array_equal(clip.frames[:3], clip.frames[3:6]) and clip.end_secs == 1.2
    assert np.array_equal(clip.pcm[:57_600], clip.pcm[57_600:115_200])

    write_video(path, [scene_of(8, 3)], secs_each=4.0, size=(64, 64), sound=False)
    clips = clips_of(path, SMALL_WORLD)
    assert [(c.start_secs, c.end_secs, c.pcm) for c in clips] == [(0, 3.2, None), (0.8, 4.0, None)]

    sound = synthesise(scene_of(8, 3), 0.0, 200_000)
    write_wav(tmp_path / "sound.wav", sound)
    clips = clips_of(tmp_path / "sound.wav", SMALL_WORLD)
    assert [c.frames for c in clips] == [None, None]
    assert np.abs(clips[1].pcm - sound[-153_600:]).max() < 1e-4


def test_no_media(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("not a film")
    with pytest.raises(MediaError, match="no video and no audio"):
        decode(tmp_path / "a.mp4", 2.5)


def test_held_out_tensors_through_files(tmp_path: Path) -> None:
    held_out = held_out_set(0, 3)
    straight, by_file = tensors(held_out, SMALL_WORLD), tensors(held_out, SMALL_WORLD, tmp_path)
    assert straight[0].shape == by_file[0].shape == (3, 8, 64, 64, 3)
    assert straight[1].shape == by_file[1].shape == (3, 153_600)
    assert not list(tmp_path.iterdir())
