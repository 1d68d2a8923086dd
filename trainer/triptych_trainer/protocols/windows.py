"""Videos and sounds to the windows that a protocol looks at."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bars import without_bars
from ..data.augment import augment
from ..data.config import Augment
from ..frames import linspace_windows, preprocess
from ..media import MediaError, decode

CROP_AND_FLIP = Augment(scale_jitter_chance=0.0, colour_chance=0.0)


@dataclass(frozen=True)
class VideoRule:
    """How a protocol cuts windows: every `stride`-th of the frames at `fps`."""

    fps: float
    stride: int
    frames: int
    resize: int
    crop: int
    bars: str = "keep"
    """`crop`: windows without black bars around their picture."""
    max_secs: float | None = None
    """Only so much of the beginning."""

    def window(self, frames: np.ndarray) -> np.ndarray:
        """The frames of one window, without bars where they are to be left out."""
        return without_bars(frames, self.frames) if self.bars == "crop" else frames


@dataclass(frozen=True)
class Media:
    """A file, or the seconds `span` of it."""

    path: Path
    span: tuple[float, float] | None = None

    @property
    def key(self) -> str:
        return str(self.path) if self.span is None else f"{self.path}@{self.span}"


def frames_of(media: Media, rule: VideoRule) -> np.ndarray:
    """u8 [T, H, W, 3] at the rule's rate."""
    start, end = media.span or (0.0, math.inf)
    if rule.max_secs is not None:
        end = min(end, start + rule.max_secs)
    part = None if (start, end) == (0.0, math.inf) else (start, min(end - start, 1e6))
    frames = decode(media.path, rule.fps, span=part).frames
    if frames is None or not len(frames):
        raise MediaError(f"{media.path.name}: no frames")
    return frames


def spread_windows(media: Media, rule: VideoRule, count: int) -> np.ndarray:
    """u8 [count, T, crop, crop, 3]: evenly spread, centre crop; a short video starts over."""
    frames = frames_of(media, rule)
    chosen = linspace_windows(len(frames), count, rule.frames, rule.stride)
    cut = (rule.window(frames[rows]) for rows in chosen)
    return np.stack([preprocess(window, rule.resize, rule.crop) for window in cut])


def random_windows(
    media: Media,
    rule: VideoRule,
    count: int,
    rng: np.random.Generator,
    how: Augment = CROP_AND_FLIP,
) -> np.ndarray:
    """The same shape: random moments, random crops and flips."""
    frames, found = frames_of(media, rule), []
    room = max(0, len(frames) - rule.frames * rule.stride)
    for _ in range(count):
        start = int(rng.integers(room + 1))
        rows = (start + np.arange(rule.frames) * rule.stride) % len(frames)
        found.append(augment(rule.window(frames[rows]), rule.resize, rule.crop, how, rng))
    return np.stack(found)


def sound_windows(media: Media, rate_hz: int, samples: int, count: int) -> np.ndarray:
    """f32 [count, samples]: evenly spread; zeros after the end of a short sound."""
    pcm = decode(media.path, 1.0, rate_hz, span=media.span).pcm
    if pcm is None or not len(pcm):
        raise MediaError(f"{media.path.name}: no sound")
    pcm = np.concatenate([pcm, np.zeros(max(0, samples - len(pcm)), np.float32)])
    starts = np.linspace(0, len(pcm) - samples, count).astype(int)
    return np.stack([pcm[s : s + samples] for s in starts])


def picture(media: Media, resize: int, crop: int) -> np.ndarray:
    """u8 [1, crop, crop, 3]."""
    frames = decode(media.path, 1.0).frames
    if frames is None or not len(frames):
        raise MediaError(f"{media.path.name}: no picture")
    return preprocess(frames[:1], resize, crop)


def ahead(make: Callable, items: Iterable, workers: int) -> Iterator:
    """`map` in order, with `workers` items under way at any time (ffmpeg works outside Python). An
    item that cannot be read gives its error."""

    def tried(item: object) -> object:
        try:
            return make(item)
        except (MediaError, OSError, ValueError) as error:
            return error

    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for item in items:
            waiting.append(pool.submit(tried, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
