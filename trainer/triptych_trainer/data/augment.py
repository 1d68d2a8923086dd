"""Random resize, crop, flip and colour of a clip (MMV specification, section 7)."""

import numpy as np

from ..frames import resize_to, resized_shape
from .config import Augment

Array = np.ndarray


def augment(
    frames: Array, shorter: int, side: int, how: Augment, rng: np.random.Generator
) -> Array:
    """Decoded frames u8 [T, H, W, 3] -> u8 [T, side, side, 3]; one draw for the whole clip."""
    height, width = frames.shape[1:3]
    if rng.uniform() < how.scale_jitter_chance:
        scale_y, scale_x = rng.uniform(1 - how.scale_jitter, 1 + how.scale_jitter, size=2)
        # Two resizes in one: only the shape between them matters.
        height, width = max(1, round(height * scale_y)), max(1, round(width * scale_x))
    height, width = resized_shape(height, width, shorter)
    frames = resize_to(frames, height, width, _crop(height, width, side, how, rng))
    if rng.uniform() < how.flip_chance:
        frames = frames[:, :, ::-1]
    if rng.uniform() < how.colour_chance:
        frames = _colour(frames, how, rng)
    return np.ascontiguousarray(frames)


def _crop(
    height: int, width: int, side: int, how: Augment, rng: np.random.Generator
) -> tuple[slice, slice]:
    room_y, room_x = height - side, width - side
    if room_y < 0 or room_x < 0:
        raise ValueError(f"a crop of {side} out of {height}x{width}")
    y, x = room_y // 2, room_x // 2
    if how.random_crop:
        y, x = int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))
    return slice(y, y + side), slice(x, x + side)


def _colour(frames: Array, how: Augment, rng: np.random.Generator) -> Array:
    """Brightness, saturation, contrast and hue, the middle two in either order, clipped at last."""
    turn = rng.uniform(-how.hue, how.hue)
    saturation = rng.uniform(1 - how.saturation, 1 + how.saturation)
    contrast = np.float32(rng.uniform(1 - how.contrast, 1 + how.contrast))
    contrast_first = rng.uniform() < 0.5
    brightness = np.float32(rng.uniform(-how.brightness, how.brightness))
    out = np.empty_like(frames, order="C")
    for t, frame in enumerate(frames):
        # Planes of one frame at a time stay in the processor's cache.
        x = np.ascontiguousarray(frame.transpose(2, 0, 1), np.float32)
        x *= np.float32(1 / 255)
        x += brightness
        if contrast_first:
            x = turned(_contrast(x, contrast), turn, saturation)
        else:
            x = turned(_contrast(turned(x, 0.0, saturation), contrast), turn, 1.0)
        np.clip(x, 0, 1, out=x)
        out[t] = (x * np.float32(255) + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0)
    return out


def _contrast(x: Array, factor: np.float32) -> Array:
    """Away from or to the mean of each plane."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * factor + mean


def turned(rgb: Array, turn: float, saturation: float) -> Array:
    """Planes [3, ...] with the hue turned by so many whole turns and the saturation scaled (and
    kept at 1 at most), in the HSV model."""
    red, green, blue = np.clip(rgb, 0, 1)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    wide = np.minimum(spread * np.float32(saturation), value)
    np.copyto(spread, np.float32(1), where=spread == 0)
    hue = np.where(
        value == red,
        (green - blue) / spread,
        np.where(value == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    hue += np.float32(6 * turn)
    out = np.empty((3, *value.shape), np.float32)
    for plane, offset in zip(out, (5, 3, 1), strict=True):
        # How far the hue is from this plane's own, up to half a turn: k in -3 .. 3.
        k = hue + np.float32(offset - 2)
        k -= np.float32(6) * np.rint(k * np.float32(1 / 6))
        # value - wide * clip(min(k', 4 - k'), 0, 1) with k' = k + 2
        np.abs(k, out=k)
        np.subtract(np.float32(2), k, out=k)
        np.clip(k, 0, 1, out=k)
        k *= wide
        np.subtract(value, k, out=plane)
    return out


def noisy(pcm: Array, share: float, rng: np.random.Generator) -> Array:
    """Gaussian noise, as a share of the loudest sample."""
    if share == 0 or not len(pcm):
        return pcm
    noise = rng.standard_normal(len(pcm), dtype=np.float32)
    loudest = np.float32(np.abs(pcm).max())
    return np.clip(pcm + noise * np.float32(share) * loudest, -1, 1)
