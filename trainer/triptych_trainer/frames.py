"""Resize and crop of u8 frames (MMV specification, section 8; `docs/bundle.md`).

The server computes the same in Rust; the same stored frames test both, byte for byte."""

import numpy as np

Array = np.ndarray


def _taps(source: int, target: int) -> tuple[Array, Array, Array]:
    """Lower index, upper index and weight of the upper one, half-pixel centres, edges clamped."""
    scale = np.float32(source) / np.float32(target)
    at = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    low = np.floor(at)
    weight = at - low
    lower = np.clip(low, 0, source - 1).astype(np.int64)
    upper = np.clip(low + 1, 0, source - 1).astype(np.int64)
    return lower, upper, weight


def resized_shape(height: int, width: int, shorter: int) -> tuple[int, int]:
    """(height, width) after the shorter side became `shorter`."""
    if height <= width:
        return shorter, width * shorter // height
    return height * shorter // width, shorter


def resize(frames: Array, shorter: int) -> Array:
    """Frames u8 [T, H, W, 3] -> u8 [T, h, w, 3]: bilinear, no antialias, truncated to u8."""
    return resize_to(frames, *resized_shape(*frames.shape[1:3], shorter))


def resize_to(
    frames: Array, height: int, width: int, window: tuple[slice, slice] | None = None
) -> Array:
    """The same, to any size; `window`: only these rows and columns of the result."""
    rows, columns = window or (slice(None), slice(None))
    if frames.shape[1:3] == (height, width):
        return frames[:, rows, columns]
    top, bottom, wy = (taps[rows] for taps in _taps(frames.shape[1], height))
    left, right, wx = (taps[columns] for taps in _taps(frames.shape[2], width))
    wy, wx = wy[:, None, None], wx[None, :, None]
    out = np.empty((len(frames), len(top), len(left), 3), np.uint8)
    for t, frame in enumerate(frames):
        # One frame at a time: four gathered f32 copies of a long clip would not be small.
        above, below = frame[top], frame[bottom]
        upper = _between(above[:, left], above[:, right], wx)
        lower = _between(below[:, left], below[:, right], wx)
        out[t] = (upper + (lower - upper) * wy).astype(np.uint8)
    return out


def _between(a: Array, b: Array, weight: Array) -> Array:
    a, b = a.astype(np.float32), b.astype(np.float32)
    return a + (b - a) * weight


def preprocess(frames: Array, shorter: int, side: int) -> Array:
    """What a tower gets of decoded frames, the middle square: u8 [T, side, side, 3]."""
    height, width = resized_shape(*frames.shape[1:3], shorter)
    y, x = (height - side) // 2, (width - side) // 2
    middle = (slice(y, y + side), slice(x, x + side))
    return np.ascontiguousarray(resize_to(frames, height, width, middle))


def linspace_windows(count: int, windows: int, frames: int, stride: int) -> list[list[int]]:
    """Frame indices of evenly spread evaluation windows (section 8); a short video starts over."""
    last = max(count - frames * stride, 0)
    starts = np.linspace(0, last, windows).astype(int)
    return [[(int(s) + i * stride) % count for i in range(frames)] for s in starts]
