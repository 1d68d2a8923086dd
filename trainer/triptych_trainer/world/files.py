"""Scenes to MP4 and WebM files with sound, and to WAV."""

import subprocess
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from .render import render
from .scene import Scene
from .sound import SAMPLE_RATE_HZ, synthesise

H264 = ("-c:v", "libx264", "-preset", "medium", "-crf", "20", "-movflags", "+faststart")
VP9 = ("-c:v", "libvpx-vp9", "-crf", "30", "-b:v", "0", "-cpu-used", "4")
CODECS = {
    ".mp4": (*H264, "-c:a", "aac", "-b:a", "80k"),
    ".webm": (*VP9, "-c:a", "libopus", "-b:a", "80k"),
}


def write_wav(path: Path, pcm: np.ndarray) -> None:
    """Mono 16-bit PCM of f32 [samples] in [-1, 1]."""
    whole = np.round(np.clip(pcm, -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(whole.tobytes())


def write_video(
    path: Path,
    scenes: Sequence[Scene],
    *,
    secs_each: float = 3.2,
    start_secs: Sequence[float] | None = None,
    size: tuple[int, int] = (128, 128),
    fps: int = 25,
    extra_secs: float = 0.0,
    sound: bool = True,
    bars: tuple[int, int] = (0, 0),
) -> None:
    """Scenes one after the other in one file; the suffix (.mp4, .webm) chooses the codecs.

    `start_secs`: where in each scene's own time to begin. `size` is (width, height), both even;
    the scene fills the centre square. The last scene goes on for `extra_secs`. `bars`: black rows
    above and below, and columns on both sides, around the picture.
    """
    width, height = size
    begins = [0.0] * len(scenes) if start_secs is None else start_secs
    frames, pcm, frame = [], [], 0
    for n, (scene, begin) in enumerate(zip(scenes, begins, strict=True)):
        # Rounded on the whole film, so that cuts do not drift when fps * secs_each is not whole.
        ends = (n + 1) * secs_each + (extra_secs if n + 1 == len(scenes) else 0.0)
        last = round(ends * fps)
        frames.append(render(scene, begin + np.arange(last - frame) / fps, height, width))
        samples = round(last / fps * SAMPLE_RATE_HZ) - round(frame / fps * SAMPLE_RATE_HZ)
        pcm.append(synthesise(scene, begin, samples))
        frame = last
    around = [(0, 0), (bars[0], bars[0]), (bars[1], bars[1]), (0, 0)]
    encode(
        path, np.pad(np.concatenate(frames), around), np.concatenate(pcm) if sound else None, fps
    )


def encode(path: Path, frames: np.ndarray, pcm: np.ndarray | None, fps: int) -> None:
    """Frames u8 [T, H, W, 3] and PCM f32 [samples] to a file, the same bytes every time."""
    _, height, width, _ = frames.shape
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
    with tempfile.TemporaryDirectory() as folder:
        picture, sound = Path(folder) / "frames.rgb", Path(folder) / "sound.wav"
        frames.tofile(picture)
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        command += ["-r", str(fps), "-i", str(picture)]
        if pcm is not None:
            write_wav(sound, pcm)
            command += ["-i", str(sound)]
        # Otherwise random numbers and versions get into the file.
        command += ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
        command += ["-map_metadata", "-1", "-threads", "1", "-pix_fmt", "yuv420p"]
        command += [*CODECS[path.suffix], str(path)]
        subprocess.run(command, check=True)
