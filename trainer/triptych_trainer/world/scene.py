"""What a scene is made of, and how scenes are drawn from a seed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
MOTIONS = ("left", "right", "up", "down", "circling", "shaking", "growing", "shrinking")
SIZES = ("small", "big")
ATTRIBUTES = {"shape": SHAPES, "colour": COLOURS, "motion": MOTIONS, "size": SIZES}

HUES = np.array([0.0, 0.075, 0.155, 0.34, 0.5, 0.62, 0.76, 0.9])

# Training worlds and held-out worlds never share a seed.
HELD_OUT_BASE = 1_000_000_000


@dataclass(frozen=True)
class Scene:
    """One object: indices into the attribute tuples, and the numbers drawn around them."""

    shape: int
    colour: int
    motion: int
    size: int
    x: float
    y: float
    radius: float
    speed: float
    """Frame widths per second, or cycles per second, by motion."""
    phase: float
    rotation: float
    hsv: tuple[float, float, float]
    background: tuple[tuple[float, float, float], tuple[float, float, float]]
    background_angle: float
    texture: tuple[float, float, float]
    """Amplitude, frequency and phase of the background's waves."""
    pitch_detune: float
    level: float
    noise: float
    noise_seed: int

    def labels(self) -> dict[str, str]:
        return {name: values[getattr(self, name)] for name, values in ATTRIBUTES.items()}


def draw_scene(rng: np.random.Generator, given: Mapping[str, int] | None = None) -> Scene:
    """One scene with independent, uniform attributes, but for those that are `given`."""
    drawn = {name: int(rng.integers(len(values))) for name, values in ATTRIBUTES.items()}
    drawn |= given or {}
    shape, colour, motion, size = (drawn[name] for name in ("shape", "colour", "motion", "size"))
    radius = rng.uniform(0.2, 0.24) if SIZES[size] == "small" else rng.uniform(0.32, 0.37)
    name = MOTIONS[motion]
    speed = {
        "circling": rng.uniform(0.17, 0.26) * rng.choice([-1, 1]),
        "shaking": rng.uniform(0.9, 1.15),
        "growing": rng.uniform(0.14, 0.22),
        "shrinking": rng.uniform(0.14, 0.22),
    }.get(name, rng.uniform(0.1, 0.18))
    hue = (HUES[colour] + rng.uniform(-0.018, 0.018)) % 1.0
    muted = lambda: (rng.uniform(), rng.uniform(0.0, 0.22), rng.uniform(0.04, 0.5))  # noqa: E731
    return Scene(
        shape=shape,
        colour=colour,
        motion=motion,
        size=size,
        x=rng.uniform(0.36, 0.64),
        y=rng.uniform(0.36, 0.64),
        radius=radius,
        speed=float(speed),
        phase=rng.uniform(),
        rotation=rng.uniform(-0.25, 0.25),
        hsv=(hue, rng.uniform(0.78, 1.0), rng.uniform(0.78, 1.0)),
        background=(muted(), muted()),
        background_angle=rng.uniform(0, 2 * np.pi),
        texture=(rng.uniform(0, 0.07), rng.uniform(1.0, 6.0), rng.uniform(0, 2 * np.pi)),
        pitch_detune=rng.uniform(-0.02, 0.02),
        level=rng.uniform(0.12, 0.5),
        noise=10 ** rng.uniform(-3.2, -1.9),
        noise_seed=int(rng.integers(1 << 31)),
    )


def scene_of(seed: int, index: int, *, held_out: bool = False) -> Scene:
    """Scene `index` of world `seed`; the same every time, on every machine."""
    return draw_scene(np.random.default_rng([seed + (HELD_OUT_BASE if held_out else 0), index]))
