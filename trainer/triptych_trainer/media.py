"""Files to frames, samples and clips, exactly as the server reads them (`docs/bundle.md`)."""

import re
import subprocess
import tempfile
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np

from .bars import without_bars
from .clips import cut_sound, loop, round_half_away, spans
from .config import ModelConfig
from .frames import preprocess
from .shown import VideoLine
from .tracks import Picks, Seen, decide, streams_of

_MEAN = "aformat=sample_fmts=fltp,pan=mono|c0<" + "+".join(f"c{i}" for i in range(64))
"""The mean of a track's channels, whatever their number and layout."""

_PLACES = (
    "asetpts=print(if(isnan(PTS)\\,4.5e15+S\\,3e15+PTS*65536+min(S\\,65535))\\,32)\\;"
    "if(isnan(PTS)+lt(S\\,65535)\\,0\\,print(5e15+S\\,32))\\;PTS"
)
"""Has ffmpeg say at which sample each frame of sound begins and how many samples it has."""

_TOLERANCE_SECS = 0.02

_SAME_END_SECS = 1.0
"""A container's length and the decoded one mean the same end where they differ by less."""


class MediaError(RuntimeError):
    """A file that cannot be decoded."""


class Track(NamedTuple):
    """A track that `probe` chose; for pictures with their size as ffmpeg turns them."""

    width: int = 0
    height: int = 0
    line: VideoLine | None = None
    streams: tuple[int, ...] = ()
    """Its stream; of sound the streams whose mean it is."""

    def shown(self) -> "Track":
        """The same with square pixels."""
        if self.line is None:
            return self
        width, height = self.line.shown_size()
        turned = (self.width, self.height) != (self.line.width, self.line.height)
        return Track(*((height, width) if turned else (width, height)), self.line, self.streams)


@dataclass(frozen=True)
class Decoded:
    """A file's tracks, as far as it has them."""

    frames: np.ndarray | None
    """u8 [T, H, W, 3] at the model's fps, as decoded."""
    pcm: np.ndarray | None
    """f32 [samples], mono, at the model's rate."""
    duration_secs: float | None
    """What the container says, to a hundredth; None if it says nothing."""


@dataclass(frozen=True)
class FileClip:
    """One clip of a file and the tensors its towers get."""

    start_secs: float
    end_secs: float
    frames: np.ndarray | None
    pcm: np.ndarray | None


def decode(
    path: Path | str,
    fps: float,
    sample_rate_hz: int = 48_000,
    *,
    span: tuple[float, float] | None = None,
    probed: tuple[dict, float | None] | None = None,
    shown: bool = True,
) -> Decoded:
    """The pictures and the sound of a file, or of anything else ffmpeg opens.

    `span`: (start, length) in seconds; `probed`: what `probe` said, if it was asked already;
    `shown`: frames as they are meant to be shown, or as they are stored.
    """
    kinds, duration_secs = probe(path) if probed is None else probed
    name = Path(path).name
    if not kinds:
        raise MediaError(f"{name}: no video and no audio stream")
    part = [] if span is None else ["-ss", f"{span[0]:.6f}", "-t", f"{span[1]:.6f}"]
    with tempfile.TemporaryDirectory() as folder:
        video, audio = Path(folder) / "frames.rgb", Path(folder) / "sound.f32"
        # The lines of `_PLACES` are of the level info.
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-nostats"]
        command += ["-v", "repeat+level+info", "-threads", "1"]
        command += [*_untimed(path), *part, "-i", str(path)]
        if "Video" in kinds:
            track, graph = kinds["Video"], f"fps=fps={fps:g}:start_time=0"
            if shown and track.line is not None:
                track, graph = track.shown(), track.line.filters(graph)
            graph += ",format=rgb24"
            command += ["-map", f"0:{track.streams[0]}", "-vf", graph, "-f", "rawvideo"]
            command += ["-pix_fmt", "rgb24"]
            command += [str(video)]
        if "Audio" in kinds:
            command += _sound(kinds["Audio"].streams, sample_rate_hz)
            command += ["-c:a", "pcm_f32le", "-f", "f32le", str(audio)]
        done = subprocess.run(command, capture_output=True, check=False)
        told = done.stderr.decode(errors="replace")
        if done.returncode != 0:
            said = [line for line in told.splitlines() if re.search(r"\[(error|fatal)\]", line)]
            raise MediaError(f"{name}: {' '.join(said)}")
        frames = pcm = None
        if "Video" in kinds:
            frames = np.fromfile(video, np.uint8).reshape(-1, track.height, track.width, 3)
            if not len(frames):
                frames = _first_picture(path, track, part, shown=shown)
        if "Audio" in kinds:
            pcm = placed(np.fromfile(audio, "<f4"), places_told(told), sample_rate_hz)
    return Decoded(frames, pcm, duration_secs)


def _sound(streams: tuple[int, ...], rate_hz: int) -> list[str]:
    """The mean of a track's channels, or of tracks that are the channels of one sound."""
    last = f"aresample={rate_hz},{_PLACES}"
    if len(streams) == 1:
        return ["-map", f"0:{streams[0]}", "-af", f"{_MEAN},{last}"]
    filled = f"{_MEAN},aresample=async=1:min_hard_comp=0.02:first_pts=0"
    graph = "".join(f"[0:{n}]{filled}[s{n}];" for n in streams)
    graph += "".join(f"[s{n}]" for n in streams)
    graph += f"amix=inputs={len(streams)}:duration=longest:normalize=0"
    graph += f",volume=1/{len(streams)}:precision=double,{last}[mean]"
    return ["-filter_complex", graph, "-map", "[mean]"]


def _untimed(path: Path | str) -> list[str]:
    """ADTS has no time stamps, and those made up are wrong once its rate changes."""
    try:
        with open(path, "rb") as file:
            head = file.read(2)
    except OSError:
        return []
    return ["-fflags", "+nofillin"] if head[:1] == b"\xff" and head[1] & 0xF6 == 0xF0 else []


def places_told(log: str) -> list[tuple[int | None, int]]:
    """(first sample, samples) of each frame of sound, in order, as `_PLACES` had them printed."""
    places: list[tuple[int | None, int]] = []
    # A line may begin with half a line of another thread, and that may end with a digit.
    for digits in re.findall(r"([2345]\d{15})\.000000$", log, re.MULTILINE):
        number = int(digits)
        if number >= 5 * 10**15:
            places[-1] = (places[-1][0], number - 5 * 10**15)
        elif number >= 45 * 10**14:
            places.append((None, number - 45 * 10**14))
        else:
            packed = number - 3 * 10**15
            places.append((packed >> 16, packed & 0xFFFF))
    return places


def placed(pcm: np.ndarray, places: list[tuple[int | None, int]], rate_hz: int) -> np.ndarray:
    """Samples at their time: gaps are silent, and what lies before the beginning or where other
    sound is already is dropped. Frames that are off by 20 ms or less follow the one before."""
    pieces: list[np.ndarray] = []
    given = at = 0
    begun = False
    for first, count in places:
        frame = pcm[at : at + count]
        at += count
        off = 0 if first is None else first - given
        tolerance = _TOLERANCE_SECS * rate_hz if begun else 0
        begun = begun or (first is not None and first + count > 0)
        if count > 0 and abs(off) > tolerance:
            if off > 0:
                pieces.append(np.zeros(off, pcm.dtype))
            else:
                frame = frame[-off:]
            given += max(off, 0)
        pieces.append(frame)
        given += len(frame)
    return np.concatenate(pieces) if pieces else pcm


def _first_picture(path: Path | str, track: Track, part: list[str], *, shown: bool) -> np.ndarray:
    """u8 [1, H, W, 3] (or none) of a video too short for the sampling to give a frame."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *part, "-i", str(path)]
    graph = track.line.filters("null") if shown and track.line is not None else "null"
    command += ["-map", f"0:{track.streams[0]}", "-frames:v", "1", "-vf", f"{graph},format=rgb24"]
    command += ["-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, track.height, track.width, 3)


def native_frames(path: Path | str) -> tuple[np.ndarray, Fraction]:
    """(u8 [n, H, W, 3], frames a second): every frame of a film of constant rate, as shown."""
    kinds, _ = probe(path)
    if "Video" not in kinds:
        raise MediaError(f"{Path(path).name}: no video stream")
    track, graph = kinds["Video"], "null"
    if track.line is not None:
        track, graph = track.shown(), track.line.filters(graph)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(path)]
    command += ["-map", f"0:{track.streams[0]}", "-vf", f"{graph},format=rgb24"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        raise MediaError(f"{Path(path).name}: {done.stderr.decode(errors='replace')}")
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, track.height, track.width, 3)
    return frames, _rate(path, track.streams[0])


def _rate(path: Path | str, stream: int) -> Fraction:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-i", str(path)]
    told = subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")
    line = next((line for line in told.splitlines() if f"Stream #0:{stream}" in line), "")
    said = re.search(r"([\d.]+)(k?) fps", line)
    if said is None:
        raise MediaError(f"{Path(path).name}: its description has no frame rate")
    rate = Fraction(said[1]) * (1000 if said[2] else 1)
    # 29.97 stands for 30000/1001.
    ntsc = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return ntsc if rate.denominator != 1 and abs(ntsc - rate) < Fraction(1, 100) else rate


def probe(path: Path | str) -> tuple[dict[str, Track], float | None]:
    """({"Video": a track, "Audio": a track}, seconds): what is read of a file, the size as ffmpeg
    turns the frames before it hands them out."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-i", str(path)]
    told = subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")
    picks, lines = _picks(path, told)
    kinds: dict[str, Track] = {}
    line = "" if picks.video is None else lines[picks.video]
    if size := re.search(r"[ ,](\d{2,5})x(\d{2,5})[ ,]", line):
        kinds["Video"] = Track(int(size[1]), int(size[2]), VideoLine.read(line), (picks.video,))
    if picks.sound:
        kinds["Audio"] = Track(streams=picks.sound)
    if "Video" in kinds and re.search(r"rotation of -?(90|270)", told):
        width, height, read, streams = kinds["Video"]
        kinds["Video"] = Track(height, width, read, streams)
    duration = re.search(r"Duration: (\d+):(\d+):(\d+\.\d+)", told)
    if duration is None:
        return kinds, None
    hours, minutes, secs = (float(part) for part in duration.groups())
    return kinds, 3600 * hours + 60 * minutes + secs


def _picks(path: Path | str, told: str) -> tuple[Picks, dict[int, str]]:
    """The tracks to read, by ffmpeg's description and a survey of the file where that leaves a
    choice; and the descriptions of all."""
    name, streams = streams_of(told)
    picks = decide(name, streams)
    if not isinstance(picks, Picks):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-nostats"]
        command += ["-v", "repeat+level+info", "-i", str(path), *picks.words()]
        log = subprocess.run(command, capture_output=True, check=False).stderr
        picks = decide(name, streams, Seen.read(log.decode(errors="replace")))
    return picks, {stream.index: stream.line for stream in streams}


def clips_of(path: Path, cfg: ModelConfig, stride_secs: float | None = None) -> list[FileClip]:
    """Every clip of a file with its tensors, in order; the stride defaults to the window."""
    decoded = decode(path, cfg.fps, cfg.sample_rate_hz, shown=cfg.picture == "shown")
    frames, pcm = decoded.frames, decoded.pcm
    stride = cfg.frames if stride_secs is None else stride_secs * cfg.fps
    if frames is None:
        return _sound_clips(pcm, cfg, stride)
    found = []
    for span in spans(len(frames), cfg.frames, stride):
        sound = None if pcm is None else cut_sound(pcm, span, cfg.frames, cfg.samples)
        picture = frames[span.start : span.end]
        if cfg.bars == "crop":
            picture = without_bars(picture, cfg.frames)
        picture = loop(preprocess(picture, cfg.resize, cfg.crop), cfg.frames)
        end_secs = _within(span.start / cfg.fps, span.end / cfg.fps, decoded.duration_secs)
        found.append(FileClip(span.start / cfg.fps, end_secs, picture, sound))
    if pcm is None:
        return found
    after = round_half_away(len(frames) / cfg.fps * cfg.sample_rate_hz)
    if len(pcm) - after < cfg.samples / 10:
        return found
    for clip in _sound_clips(pcm[after:], cfg, stride):
        start_secs = after / cfg.sample_rate_hz + clip.start_secs
        end_secs = after / cfg.sample_rate_hz + clip.end_secs
        end_secs = _within(start_secs, end_secs, decoded.duration_secs)
        found.append(replace(clip, start_secs=start_secs, end_secs=end_secs))
    return found


def _within(start_secs: float, end_secs: float, declared: float | None) -> float:
    """Where a clip of a film ends: not behind the declared end, if that means the same end."""
    same = declared is not None and start_secs < declared and end_secs - declared < _SAME_END_SECS
    return min(end_secs, declared) if same else end_secs


def _sound_clips(pcm: np.ndarray, cfg: ModelConfig, stride_frames: float) -> list[FileClip]:
    """Sound without pictures: the same windows, counted in samples."""
    rate = cfg.sample_rate_hz
    found = []
    for span in spans(len(pcm), cfg.samples, stride_frames / cfg.fps * rate):
        sound = cut_sound(pcm, span, cfg.samples, cfg.samples)
        found.append(FileClip(span.start / rate, span.end / rate, None, sound))
    return found
