"""Scenes to frames: signed distances in frame units, so any resolution shows the same picture."""

from collections.abc import Sequence

import numpy as np

from .scene import MOTIONS, Scene

Array = np.ndarray


def hsv_to_rgb(hsv: Sequence[float]) -> Array:
    hue, saturation, value = hsv
    ramp = np.abs((hue * 6.0 + np.array([0.0, 4.0, 2.0])) % 6.0 - 3.0) - 1.0
    return value * (1.0 - saturation * (1.0 - np.clip(ramp, 0.0, 1.0)))


def placement(scene: Scene, t: Array) -> tuple[Array, Array, Array]:
    """Centre x, y and radius at times t in seconds. Paths go on for ever, whatever the length."""
    name = MOTIONS[scene.motion]
    x, y = np.full_like(t, scene.x), np.full_like(t, scene.y)
    r = np.full_like(t, scene.radius)
    # Beyond the border by most of a radius, then in again on the other side.
    lane = 1.0 + 1.6 * scene.radius
    along = (scene.phase + scene.speed * t / lane) % 1.0 * lane - 0.8 * scene.radius
    if name == "right":
        x = along
    elif name == "left":
        x = 1.0 - along
    elif name == "down":
        y = along
    elif name == "up":
        y = 1.0 - along
    elif name == "circling":
        angle = 2 * np.pi * (scene.phase + scene.speed * t)
        x, y = 0.5 + 0.22 * np.cos(angle), 0.5 + 0.22 * np.sin(angle)
    elif name == "shaking":
        x = x + 0.13 * np.sin(2 * np.pi * (scene.phase + scene.speed * t))
    else:
        cycle = (scene.phase + scene.speed * t) % 1.0
        r = scene.radius * (0.45 + 1.0 * (cycle if name == "growing" else 1.0 - cycle))
    return x, y, r


def distance(shape: int, x: Array, y: Array, r: Array) -> Array:
    """Signed distance (about) to the outline of a shape of radius r around the origin."""
    if shape == 0:
        return np.hypot(x, y) - r
    if shape == 1:
        return np.maximum(np.abs(x), np.abs(y)) - 0.84 * r
    if shape == 2:
        slant = 0.8660254 * np.abs(x) + 0.5 * -y
        return np.maximum(slant, y) - 0.55 * r
    if shape == 3:
        angle = np.arctan2(x, -y) * (5 / (2 * np.pi))
        spike = 2.0 * np.abs(angle - np.round(angle))
        return (np.hypot(x, y) - r * 1.12 * (1.0 - 0.6 * spike)) * 0.7
    if shape == 4:
        ax, ay = np.abs(x), np.abs(y)
        wide = np.maximum(ax - r, ay - 0.34 * r)
        tall = np.maximum(ax - 0.34 * r, ay - r)
        return np.minimum(wide, tall)
    return np.abs(np.hypot(x, y) - 0.76 * r) - 0.24 * r


def background(scene: Scene, size: int) -> Array:
    """f32 [size, size, 3] in [0, 1]."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    gx, gy = axis[None, :], axis[:, None]
    ramp = (gx - 0.5) * np.cos(scene.background_angle) + (gy - 0.5) * np.sin(scene.background_angle)
    mix = np.clip(ramp + 0.5, 0, 1)[..., None].astype(np.float32)
    first, second = (hsv_to_rgb(c).astype(np.float32) for c in scene.background)
    amplitude, frequency, phase = scene.texture
    waves = np.sin(2 * np.pi * frequency * gx + phase) * np.sin(2 * np.pi * frequency * gy - phase)
    picture = first * (1 - mix) + second * mix + (amplitude * waves)[..., None].astype(np.float32)
    return np.clip(picture, 0, 1)


def render(scene: Scene, times_secs: Array, size: int, softness: float = 1.0) -> Array:
    """Frames u8 [T, size, size, 3] at the given seconds. `softness`: edge width in pixels."""
    t = np.asarray(times_secs, dtype=np.float32)
    cx, cy, r = (a.astype(np.float32)[:, None, None] for a in placement(scene, t))
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    dx, dy = axis[None, None, :] - cx, axis[None, :, None] - cy
    cos, sin = np.float32(np.cos(scene.rotation)), np.float32(np.sin(scene.rotation))
    d = distance(scene.shape, dx * cos + dy * sin, dy * cos - dx * sin, r)
    cover = np.clip(0.5 - d * np.float32(size / softness), 0, 1)[..., None]
    # Lit from above, so that the object is not one flat patch.
    light = np.clip(1.0 - 0.25 * (dy / np.maximum(r, 1e-3)), 0.7, 1.15)[..., None]
    colour = np.clip(hsv_to_rgb(scene.hsv).astype(np.float32) * light, 0, 1)
    back = background(scene, size)[None]
    picture = back + cover * (colour - back)
    return (picture * 255.0 + 0.5).astype(np.uint8)
