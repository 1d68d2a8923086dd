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
        # Folded into half a point: from the tip at (tip, 0) to the notch.
        fifth = np.float32(2 * np.pi / 5)
        angle = np.arctan2(x, -y)
        angle = np.abs(angle - np.round(angle / fifth) * fifth)
        rho, tip = np.hypot(x, y), 1.12 * r
        fx, fy = rho * np.cos(angle) - tip, rho * np.sin(angle)
        ex, ey = 0.45 * np.cos(fifth / 2) - 1.0, 0.45 * np.sin(fifth / 2)
        return (fx * ey - fy * ex) / np.hypot(ex, ey)
    if shape == 4:
        ax, ay = np.abs(x), np.abs(y)
        wide = np.maximum(ax - r, ay - 0.34 * r)
        tall = np.maximum(ax - 0.34 * r, ay - r)
        return np.minimum(wide, tall)
    return np.abs(np.hypot(x, y) - 0.76 * r) - 0.24 * r


def axes(height: int, width: int) -> tuple[Array, Array]:
    """Pixel centres x [width], y [height] in units of the shorter side: the centre square, which
    is all that a model sees, spans 0 to 1 on both axes."""
    side = np.float32(min(height, width))
    x = (np.arange(width, dtype=np.float32) + 0.5 - (width - side) / 2) / side
    y = (np.arange(height, dtype=np.float32) + 0.5 - (height - side) / 2) / side
    return x, y


def background(scene: Scene, height: int, width: int) -> Array:
    """f32 [height, width, 3] in [0, 1]."""
    x, y = axes(height, width)
    gx, gy = x[None, :], y[:, None]
    turn = np.float32(scene.background_angle)
    ramp = (gx - 0.5) * np.cos(turn) + (gy - 0.5) * np.sin(turn)
    mix = np.clip(ramp + 0.5, 0, 1)[..., None]
    first, second = (hsv_to_rgb(c).astype(np.float32) for c in scene.background)
    amplitude, frequency, phase = (np.float32(v) for v in scene.texture)
    tau = np.float32(2 * np.pi)
    waves = np.sin(tau * frequency * gx + phase) * np.sin(tau * frequency * gy - phase)
    return np.clip(first + mix * (second - first) + (amplitude * waves)[..., None], 0, 1)


def render(
    scene: Scene, times_secs: Array, height: int, width: int | None = None, softness: float = 1.0
) -> Array:
    """Frames u8 [T, height, width, 3] at the given seconds; square unless `width` says otherwise.

    `softness` is the width of the object's edge in pixels.
    """
    width = height if width is None else width
    t = np.asarray(times_secs, dtype=np.float64)
    cx, cy, r = (a.astype(np.float32)[:, None, None] for a in placement(scene, t))
    x, y = axes(height, width)
    dx, dy = x[None, None, :] - cx, y[None, :, None] - cy
    cos, sin = np.float32(np.cos(scene.rotation)), np.float32(np.sin(scene.rotation))
    d = distance(scene.shape, dx * cos + dy * sin, dy * cos - dx * sin, r)
    cover = np.clip(0.5 - d * np.float32(min(height, width) / softness), 0, 1)[..., None]
    # Lit from above, so that the object is not one flat patch.
    light = np.clip(1.0 - 0.25 * (dy / np.maximum(r, 1e-3)), 0.7, 1.15)[..., None]
    colour = np.clip(hsv_to_rgb(scene.hsv).astype(np.float32) * light, 0, 1)
    back = background(scene, height, width)[None]
    picture = back + cover * (colour - back)
    return (picture * 255.0 + 0.5).astype(np.uint8)
