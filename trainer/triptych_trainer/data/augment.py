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
    frames = resize_to(frames, *resized_shape(height, width, shorter))
    frames = _crop(frames, side, how, rng)
    if rng.uniform() < how.flip_chance:
        frames = frames[:, :, ::-1]
    if rng.uniform() < how.colour_chance:
        frames = _colour(frames, how, rng)
    return np.ascontiguousarray(frames)


def _crop(frames: Array, side: int, how: Augment, rng: np.random.Generator) -> Array:
    room_y, room_x = frames.shape[1] - side, frames.shape[2] - side
    if room_y < 0 or room_x < 0:
        raise ValueError(f"a crop of {side} out of {frames.shape[1]}x{frames.shape[2]}")
    y, x = room_y // 2, room_x // 2
    if how.random_crop:
        y, x = int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))
    return frames[:, y : y + side, x : x + side]


def _colour(frames: Array, how: Augment, rng: np.random.Generator) -> Array:
    """Brightness, saturation, contrast and hue, the middle two in either order, clipped at last."""
    x = frames.astype(np.float32) / np.float32(255)
    turn = rng.uniform(-how.hue, how.hue)
    saturation = rng.uniform(1 - how.saturation, 1 + how.saturation)
    contrast = np.float32(rng.uniform(1 - how.contrast, 1 + how.contrast))
    contrast_first = rng.uniform() < 0.5
    x = x + np.float32(rng.uniform(-how.brightness, how.brightness))
    if contrast_first:
        x = turned(_contrast(x, contrast), 0.0, saturation)
        x = turned(x, turn, 1.0)
    else:
        x = _contrast(turned(x, 0.0, saturation), contrast)
        x = turned(x, turn, 1.0)
    return (np.clip(x, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def _contrast(x: Array, factor: np.float32) -> Array:
    """Away from or to the mean of each frame and channel."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * factor + mean


def turned(rgb: Array, turn: float, saturation: float) -> Array:
    """Hue turned and saturation scaled (and kept at 1 at most), in the HSV model."""
    rgb = np.clip(rgb, 0, 1)
    value, low = rgb.max(axis=-1), rgb.min(axis=-1)
    spread = value - low
    safe = np.where(spread > 0, spread, np.float32(1))
    red, green, blue = (rgb[..., i] for i in range(3))
    hue = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue + np.float32(6 * turn)
    wide = np.minimum(spread * np.float32(saturation), value)
    out = np.empty_like(rgb)
    for channel, offset in enumerate((5, 3, 1)):
        k = np.mod(hue + np.float32(offset), np.float32(6))
        out[..., channel] = value - wide * np.clip(np.minimum(k, 4 - k), 0, 1)
    return out


def noisy(pcm: Array, share: float, rng: np.random.Generator) -> Array:
    """Gaussian noise, as a share of the loudest sample."""
    if share == 0 or not len(pcm):
        return pcm
    noise = rng.standard_normal(len(pcm), dtype=np.float32)
    loudest = np.float32(np.abs(pcm).max())
    return np.clip(pcm + noise * np.float32(share) * loudest, -1, 1)
