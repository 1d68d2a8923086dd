"""Scenes to sound: shape is timbre, colour is pitch, motion is what the pitch and level do."""

import functools

import numpy as np

from .scene import MOTIONS, SIZES, Scene

SAMPLE_RATE_HZ = 48_000
TABLE = 4096
BASE_HZ = 220.0


@functools.cache
def wave_table(shape: int) -> np.ndarray:
    """One period, peak 1. Partials are whole multiples of a base one octave below the pitch,
    so that bell-like timbres fit into a table too."""
    phase = 2 * np.pi * np.arange(TABLE) / TABLE
    partials: dict[int, float] = {
        0: {2: 1.0},
        1: {2 * n: 1.0 / n for n in range(1, 16, 2)},
        2: {2 * n: 1.0 / n**2 for n in range(1, 8)} | {8: 0.6},
        3: {2 * n: 1.0 / n**0.6 for n in range(1, 22)},
        4: {2: 0.25, 12: 0.5, 14: 0.5, 16: 0.5, 18: 0.4},
        5: {2: 1.0, 5: 0.7, 11: 0.6, 17: 0.4, 25: 0.3},
    }[shape]
    wave = sum(a * np.sin(n * phase + 0.7 * n) for n, a in partials.items())
    return (wave / np.abs(wave).max()).astype(np.float32)


def pitch_and_level(scene: Scene, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Relative pitch (1 = the colour's) and level (0 to 1) at times t."""
    name = MOTIONS[scene.motion]
    one = np.ones_like(t)
    if name in ("up", "down"):
        cycle = (scene.phase + 1.1 * t) % 1.0
        return 2.0 ** (0.5 * (cycle if name == "up" else 1.0 - cycle) - 0.25), one
    if name == "circling":
        return 2.0 ** (0.16 * np.sin(2 * np.pi * (scene.phase + 1.6 * t))), one
    if name == "left":
        return one, 0.55 + 0.45 * np.sin(2 * np.pi * (scene.phase + 2.0 * t))
    if name == "right":
        return one, 0.55 + 0.45 * np.sin(2 * np.pi * (scene.phase + 7.0 * t))
    if name == "shaking":
        return one, ((scene.phase + 3.6 * t) % 1.0 < 0.35).astype(t.dtype)
    # Growing swells with the picture, shrinking fades with it.
    cycle = (scene.phase + scene.speed * t) % 1.0
    return one, (cycle if name == "growing" else 1.0 - cycle) ** 1.5 + 0.02


def _upsample(coarse: np.ndarray) -> np.ndarray:
    """f32 [48 * (n - 1)] between n values at 1 kHz, linearly."""
    ramp = np.arange(48, dtype=np.float32) / 48
    steps = np.diff(coarse)[:, None].astype(np.float32)
    return (coarse[:-1, None].astype(np.float32) + steps * ramp).reshape(-1)


def synthesise(scene: Scene, start_secs: float, samples: int) -> np.ndarray:
    """PCM f32 [samples] in [-1, 1] at 48 kHz, from `start_secs` of the scene on."""
    # The envelopes are slow: 1 kHz is plenty, and 48 times cheaper.
    coarse = start_secs + np.arange(samples // 48 + 2, dtype=np.float64) / 1000.0
    pitch, level = (_upsample(curve)[:samples] for curve in pitch_and_level(scene, coarse))
    hz = BASE_HZ * 2.0 ** (scene.colour / 4.0) * (1.0 + scene.pitch_detune)
    cycles = np.cumsum(pitch, dtype=np.float64) * (hz / 2.0 / SAMPLE_RATE_HZ) + scene.phase
    at = (cycles * TABLE).astype(np.int64)
    wave = wave_table(scene.shape)[at & (TABLE - 1)]
    if SIZES[scene.size] == "big":
        # An octave below: big things sound deeper.
        wave = np.float32(0.7) * wave + np.float32(0.45) * wave_table(0)[(at >> 1) & (TABLE - 1)]
    noise = np.random.default_rng([scene.noise_seed, int(start_secs * 1000)])
    sound = wave * level * np.float32(scene.level)
    sound += np.float32(scene.noise) * noise.standard_normal(samples, dtype=np.float32)
    return np.clip(sound, -1, 1)
