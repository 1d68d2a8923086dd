"""An asset's frames and samples to clips (`docs/bundle.md`, Clips and Sound)."""

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Span:
    """Frames `start .. end` of an asset, in sampled frames."""

    start: int
    end: int


def spans(count: int, window: int, stride: float) -> list[Span]:
    """Clips of `count` frames: windows of `window` frames every `stride` frames, then one at the
    end if frames remain. `stride` need not be whole; fewer frames than a window are one clip."""
    if count <= 0:
        return []
    if count < window:
        return [Span(0, count)]
    found: list[Span] = []
    for k in range(count):
        start = round_half_away(k * stride)
        if start + window > count:
            break
        found.append(Span(start, start + window))
    if found[-1].end < count:
        found.append(Span(count - window, count))
    return found


def round_half_away(x: float) -> int:
    """Rounds as Rust's `f64::round` does; Python's `round` goes to even."""
    return math.floor(x + 0.5)


def cut_frames(frames: Array, span: Span, window: int) -> Array:
    """u8 [window, H, W, 3]; a short asset starts over until there are enough."""
    return loop(frames[span.start : span.end], window)


def cut_sound(pcm: Array, span: Span, window: int, samples: int) -> Array | None:
    """PCM f32 [samples] of a clip, or None if the track has less than a tenth of it.

    Zeros after the end of the track. For an asset shorter than a window the sound of its frames is
    repeated as the frames are.
    """
    per_frame = samples / window
    start = round_half_away(span.start * per_frame)
    wanted = round_half_away((span.end - span.start) * per_frame)
    piece = pcm[start : start + wanted]
    if len(piece) < samples / 10:
        return None
    piece = np.concatenate([piece, np.zeros(wanted - len(piece), np.float32)])
    return loop(piece, samples)


def loop(rows: Array, count: int) -> Array:
    """The first `count` rows of `rows` repeated for ever."""
    return rows if len(rows) == count else rows[np.arange(count) % len(rows)]
