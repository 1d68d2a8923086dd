"""A real server under test: files that lose nothing on their way into it, and what it answers."""

import base64
import json
import re
import struct
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from support import RELATIVE

from triptych_trainer.server import Client, ServerError


def write_clip(path: Path, frames: np.ndarray, fps: float) -> Path:
    """Frames u8 [T, H, W, 3], lossless."""
    height, width = frames.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    command += ["-c:v", "png" if path.suffix == ".png" else "ffv1"]
    command += ["-pix_fmt", "rgb24" if path.suffix == ".png" else "bgr0", str(path)]
    subprocess.run(command, input=np.ascontiguousarray(frames).tobytes(), check=True)
    return path


def write_png(path: Path, image: np.ndarray) -> Path:
    return write_clip(path, image[None], 1.0)


def write_wav(path: Path, pcm: np.ndarray, rate: int = 48_000) -> Path:
    """Mono samples as they are, in f32."""
    data = pcm.astype("<f4").tobytes()
    layout = struct.pack("<HHIIHH", 3, 1, rate, 4 * rate, 4, 32)
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout
    chunks += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


def data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(path.read_bytes()).decode()


def unit(vectors) -> np.ndarray:
    wide = np.asarray(vectors, np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def check_served(got: np.ndarray, want, name: str) -> tuple[float, float]:
    """Served unit vectors against un-normalised ones of a reference: (relative error, largest
    1 - cosine)."""
    a, b = np.asarray(got, np.float64), unit(want)
    assert a.shape == b.shape, name
    relative = float(np.abs(a - b).max() / np.abs(b).max())
    # The length of a served vector is 1 in f32, which a cosine of 1e-8 would see.
    off = float((1 - (unit(a) * b).sum(axis=1)).max())
    assert relative <= RELATIVE and off <= 1e-8, f"{name}: relative {relative:.2e}, 1-cos {off:.2e}"
    return relative, off


def refused(client: Client, path: str, body: dict) -> tuple[int, dict]:
    """(status, error) of a call that must fail."""
    with pytest.raises(ServerError) as caught:
        client.call("POST", path, body)
    status, answer = re.fullmatch(r"POST \S+: (\d+): (.*)", str(caught.value), re.DOTALL).groups()
    return int(status), json.loads(answer)["error"]
