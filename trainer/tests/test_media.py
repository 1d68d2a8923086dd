"""Scenes written to real files and read back by the bundle's rule."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from triptych_trainer.config import SMALL_WORLD
from triptych_trainer.media import MediaError, clips_of, decode, placed, places_told
from triptych_trainer.models.audio_frontend import LogMel
from triptych_trainer.world.files import write_video, write_wav
from triptych_trainer.world.heldout import held_out_set, tensors
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


def test_a_video_below_one_step_gives_its_first_picture(tmp_path: Path) -> None:
    path = tmp_path / "flash.mp4"
    write_video(path, [scene_of(8, 4)], secs_each=0.08, size=(64, 64), sound=False)
    (clip,) = clips_of(path, SMALL_WORLD)
    assert (clip.frames == clip.frames[0]).all() and clip.frames.any()


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


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("picture_secs", [0.4, 2.0, 4.0])
def test_sound_behind_the_last_picture(tmp_path: Path, suffix: str, picture_secs: float) -> None:
    sound = synthesise(scene_of(8, 3), 0.0, 10 * 48_000)
    write_wav(tmp_path / "sound.wav", sound)
    path = tmp_path / f"brief{suffix}"
    picture = f"testsrc2=size=64x64:rate=25:duration={picture_secs}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", picture]
    codec = "flac" if suffix == ".mp4" else "pcm_s16le"
    command += ["-i", str(tmp_path / "sound.wav"), "-c:a", codec, str(path)]
    subprocess.run(command, check=True)
    clips = clips_of(path, SMALL_WORLD)
    films = [(0, 3.2), (0.8, 4.0)] if picture_secs == 4.0 else [(0, picture_secs)]
    rest = [(at, at + 3.2) for at in (picture_secs, picture_secs + 3.2)]
    rest = [(start, end) for start, end in rest if end <= 10] + [(6.8, 10)]
    got = [(c.start_secs, c.end_secs) for c in clips]
    assert np.allclose(got, films + rest, atol=1e-3), got
    for clip in clips[len(films) :]:
        start = round(clip.start_secs * 48_000)
        assert clip.frames is None
        assert np.abs(clip.pcm - sound[start : start + 153_600]).max() < 1e-3


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


def _ffmpeg(*args: str) -> None:
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *args], check=True
    )


@pytest.mark.parametrize("channels", range(1, 9))
def test_sound_is_the_mean_of_all_channels(tmp_path: Path, channels: int) -> None:
    layout = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")[channels - 1]
    random = np.random.default_rng(channels)
    samples = random.integers(-20_000, 20_000, (48_000, channels)).astype("<i2")
    (tmp_path / "raw").write_bytes(samples.tobytes())
    source = ["-f", "s16le", "-ar", "48000", "-ch_layout", layout, "-i", str(tmp_path / "raw")]
    mean = samples.astype(np.float64).mean(1) / 32_768
    for name in ("a.wav", "a.flac", "a.mov", "a.mkv"):
        codec = [] if name == "a.flac" else ["-c:a", "pcm_s16le"]
        _ffmpeg(*source, *codec, str(tmp_path / name))
        assert np.abs(decode(tmp_path / name, 2.5).pcm - mean).max() < 1e-6


def test_sound_lies_where_its_time_stamp_says(tmp_path: Path) -> None:
    ramp = np.arange(1, 101, dtype=np.float32)
    told = [(0, 50), (80, 30), (None, 20)]
    out = placed(ramp, told, 1000)
    assert np.array_equal(out, np.concatenate([ramp[:50], np.zeros(30), ramp[50:]]))
    assert np.array_equal(placed(ramp, [(-60, 50), (-10, 50)], 1000), ramp[60:])
    assert np.array_equal(placed(ramp, [(0, 50), (69, 50)], 1000), ramp)
    told = ("3000000003211263", "5000000000123456", "2999999999935512")
    log = "".join(f"[Eval @ 0x1] [info] {number}.000000\n" for number in told)
    assert places_told(log) == [(48, 123_456), (-1, 1048)]
    assert places_told("  Stream #0:03000000003146752.000000\n") == [(48, 1024)]

    # Two ADTS streams of different rate and channels, one after the other.
    for name, rate, channels in (("a.aac", 48_000, 2), ("b.aac", 22_050, 1)):
        tone = f"sine=f=440:r={rate}:d=6"
        _ffmpeg("-f", "lavfi", "-i", tone, "-ac", str(channels), str(tmp_path / name))
    both = (tmp_path / "a.aac").read_bytes() + (tmp_path / "b.aac").read_bytes()
    (tmp_path / "both.aac").write_bytes(both)
    pcm = decode(tmp_path / "both.aac", 2.5).pcm
    assert abs(len(pcm) / 48_000 - 12) < 0.15
    loud = np.abs(pcm[: 48_000 * 12].reshape(120, -1)).max(1)
    assert loud.min() > 0.05
