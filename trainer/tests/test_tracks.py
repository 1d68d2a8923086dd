"""The tracks of a file: the server chooses the same."""

import json
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from triptych_trainer.media import decode, probe
from triptych_trainer.tracks import Picks, Seen, Survey, decide, streams_of

ROWS = json.loads((Path(__file__).parents[2] / "tests/tracks/rule.json").read_text())
FILM, LARGE = "color=red:s=64x48:r=10:d=2", "color=blue:s=320x240:r=10:d=2"
POSTER = "color=lime:s=640x480:r=10:d=0.1"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_trainer_and_server_choose_the_same_tracks(row: dict) -> None:
    described = "\n".join([f"Input #0, {row['format']}, from 'x':", *row["lines"]])
    seen = row.get("seen")
    if seen is not None:
        packets = {int(index): count for index, count in seen["packets"].items()}
        seen = Seen(packets, frozenset(seen["heard"]))
    choice = row.get("choice", {})
    video, audio = choice.get("video_track"), choice.get("audio_track")
    got = decide(*streams_of(described), seen, video=video, audio=audio)
    if "survey" in row:
        survey = row["survey"]
        assert got == Survey(tuple(survey["pictures"]), tuple(survey["sounds"]))
    else:
        assert got == Picks(row["video"], tuple(row["sound"]))


def make(path: Path, inputs: list[str], *more: str) -> Path:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
    for source in inputs:
        command += ["-f", "lavfi", "-i", source]
    for index in range(len(inputs)):
        command += ["-map", str(index)]
    subprocess.run([*command, *more, str(path)], check=True)
    return path


def test_a_film_before_stills_and_sound_before_silence(tmp_path: Path) -> None:
    inputs = [POSTER, FILM, LARGE, "anullsrc=r=48000:cl=stereo:d=2", "sine=600:r=48000:d=2"]
    codecs = ["-c:v", "mpeg4", "-c:a", "flac", "-disposition", "0"]
    path = make(tmp_path / "many.mkv", inputs, *codecs)
    kinds, _ = probe(path)
    assert (kinds["Video"].streams, kinds["Audio"].streams) == ((2,), (4,))
    decoded = decode(path, 10)
    assert decoded.frames.shape[1:3] == (240, 320) and decoded.frames[..., 2].mean() > 200
    assert np.abs(decoded.pcm).max() > 0.05


@pytest.mark.parametrize("count", [2, 4])
def test_channels_in_tracks_of_their_own_are_their_mean(tmp_path: Path, count: int) -> None:
    tones = [f"sine={300 + 200 * n}:r=48000:d=2,volume={0.9 - 0.2 * n}" for n in range(count)]
    codecs = ["-c:v", "mpeg4", "-c:a", "pcm_s16le", "-disposition:a", "default"]
    apart = make(tmp_path / "apart.mov", [FILM, *tones], *codecs)
    alone = [decode(make(tmp_path / f"{n}.wav", [tone]), 10).pcm for n, tone in enumerate(tones)]
    decoded = decode(apart, 10)
    assert np.abs(decoded.pcm - np.mean(alone, axis=0)).max() < 1e-6
