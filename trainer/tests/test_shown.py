"""Frames as they are meant to be shown: the server chooses the same filters."""

import json
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from triptych_trainer.media import decode
from triptych_trainer.shown import VideoLine

ROWS = json.loads((Path(__file__).parents[2] / "tests/pictures/shown.json").read_text())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["line"][:40])
def test_the_filters_are_those_of_the_server(row: dict) -> None:
    video = VideoLine.read("  Stream #0:0[0x1](und): Video: " + row["line"])
    assert video is not None
    assert list(video.shown_size()) == row["size"]
    assert video.filters("fps=fps=10:start_time=0") == row["filters"]


def _film(path: Path, *args: str) -> Path:
    source = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=1"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *source, *args]
    subprocess.run([*command, str(path)], check=True)
    return path


def test_square_pixels_and_light_within_a_screens_range(tmp_path: Path) -> None:
    plain = _film(tmp_path / "plain.mp4", "-crf", "4", "-pix_fmt", "yuv420p")
    want = decode(plain, 2.5).frames
    assert np.array_equal(want, decode(plain, 2.5, shown=False).frames)

    squeezed = _film(tmp_path / "squeezed.mp4", "-vf", "scale=240:180,setsar=4/3", "-crf", "4")
    assert decode(squeezed, 2.5).frames.shape == want.shape
    assert decode(squeezed, 2.5, shown=False).frames.shape[1:3] == (180, 240)

    to_pq = (
        "setparams=color_primaries=bt709:color_trc=bt709:colorspace=smpte170m:range=tv,"
        "zscale=t=linear:p=bt709:m=gbr:r=full:npl=203,format=gbrpf32le,"
        "zscale=p=bt2020:t=smpte2084:m=bt2020nc:r=tv:npl=203,format=yuv420p10le"
    )
    tags = "-color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc -color_range tv"
    codec = ["-c:v", "libx265", "-crf", "4", "-x265-params", "log-level=none"]
    bright = _film(tmp_path / "pq.mp4", "-vf", to_pq, *codec, *tags.split())

    def away(frames: np.ndarray) -> float:
        return float(np.abs(frames.astype(float) - want).mean())

    shown, stored = decode(bright, 2.5).frames, decode(bright, 2.5, shown=False).frames
    assert away(shown) < 25 < 60 < away(stored)
