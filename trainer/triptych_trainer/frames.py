"""Resize and crop of u8 frames (MMV specification, section 8; `docs/bundle.md`).

The server computes the same in Rust; both are held byte for byte to the same stored frames.
"""

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


def resize_to(frames: Array, new_height: int, new_width: int) -> Array:
    """The same, to any size."""
    height, width = frames.shape[1:3]
    if (height, width) == (new_height, new_width):
        return frames
    top, bottom, wy = _taps(height, new_height)
    left, right, wx = _taps(width, new_width)
    wy, wx = wy[None, :, None, None], wx[None, None, :, None]
    out = np.empty((len(frames), new_height, new_width, 3), np.uint8)
    for t, frame in enumerate(frames):
        # One frame at a time: four gathered f32 copies of a long clip would not be small.
        f = frame.astype(np.float32)[None]
        upper, lower = f[:, top], f[:, bottom]
        upper = upper[:, :, left] + (upper[:, :, right] - upper[:, :, left]) * wx
        lower = lower[:, :, left] + (lower[:, :, right] - lower[:, :, left]) * wx
        out[t] = (upper + (lower - upper) * wy)[0].astype(np.uint8)
    return out


def centre_crop(frames: Array, side: int) -> Array:
    """The middle side x side of frames [T, H, W, 3]."""
    y, x = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
    return frames[:, y : y + side, x : x + side]


def preprocess(frames: Array, shorter: int, side: int) -> Array:
    """What a tower gets of decoded frames: u8 [T, side, side, 3]."""
    return np.ascontiguousarray(centre_crop(resize(frames, shorter), side))


def linspace_windows(count: int, windows: int, frames: int, stride: int) -> list[list[int]]:
    """Frame indices of evenly spread evaluation windows (section 8); a short video starts over."""
    last = max(count - frames * stride, 0)
    starts = np.linspace(0, last, windows).astype(int)
    return [[(int(s) + i * stride) % count for i in range(frames)] for s in starts]
