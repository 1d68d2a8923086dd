"""Training batches of the procedural world, made on the fly: any batch from its number alone."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from ..config import ModelConfig, TrainConfig
from ..frames import preprocess
from ..models.audio_frontend import LogMel
from ..tokenizer import build_tokenizer, encode
from . import captions
from .render import render
from .scene import ATTRIBUTES, MOTIONS, Scene, draw_scene
from .sound import synthesise

CANDIDATES = 5
# Siblings share every attribute but one. Among independent scenes almost no two agree in colour
# and motion, so a model could tell a batch apart and never look at a shape.
SIBLINGS = 4
SIBLING_SHARE = 1.0
SIBLING_ATTRIBUTES = ("shape", "motion", "colour", "size")
SIBLING_WEIGHTS = (0.5, 0.3, 0.05, 0.15)
SIZED_MOTIONS = tuple(m for m in MOTIONS if m not in ("growing", "shrinking"))
# What a half-trained model takes for each other: a group has both of a pair or neither.
PAIRS = {
    "shape": (("circle", "square"), ("star", "cross"), ("triangle", "ring")),
    "motion": (
        ("left", "right"),
        ("up", "down"),
        ("circling", "shaking"),
        ("growing", "shrinking"),
    ),
}


@dataclass(frozen=True)
class Clip:
    """What a tower gets of one clip, before the text."""

    frames: np.ndarray
    """u8 [T, crop, crop, 3]"""
    pcm: np.ndarray
    """f32 [samples] in [-1, 1]"""


def plain_clip(scene: Scene, cfg: ModelConfig, start_secs: float = 0.0) -> Clip:
    """The scene as drawn, without any noise of its way through a file."""
    times = start_secs + np.arange(cfg.frames) / cfg.fps
    frames = render(scene, times, cfg.crop)
    return Clip(frames, synthesise(scene, start_secs, cfg.samples))


def augmented_clip(
    scene: Scene, cfg: ModelConfig, rng: np.random.Generator, *, sound: bool = True
) -> Clip:
    """The scene from a random moment on, as it might come out of a compressed file; an empty
    `pcm` without `sound`."""
    start = rng.uniform(0.0, 16.0)
    # A decoder that samples at a low rate shows the frame up to half a step later.
    times = start + rng.uniform(0.0, 0.5 / cfg.fps) + np.arange(cfg.frames) / cfg.fps
    if rng.uniform() < 0.25:
        side = int(rng.integers(cfg.crop * 3 // 2, cfg.crop * 3))
        frames = preprocess(render(scene, times, side), cfg.resize, cfg.crop)
    else:
        frames = render(scene, times, cfg.crop, softness=rng.uniform(0.4, 1.8))
    frames = _compressed(frames, rng)
    if not sound:
        return Clip(frames, np.zeros(0, np.float32))
    pcm = synthesise(scene, start, cfg.samples)
    if rng.uniform() < 0.3:
        # A sound track may end some milliseconds before the picture.
        pcm[len(pcm) - int(rng.integers(1, 2400)) :] = 0.0
    return Clip(frames, pcm * np.float32(rng.uniform(0.7, 1.0)))


def _compressed(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Coarse colour, shifted levels and noise, as 4:2:0 coding leaves them; u8 in, u8 out."""
    x = frames.astype(np.float32)
    if rng.uniform() < 0.6:
        luma = x.mean(axis=3, keepdims=True)
        t, h, w, c = x.shape
        chroma = (x - luma).reshape(t, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
        x = luma + chroma.repeat(2, axis=1).repeat(2, axis=2)
    x = x * np.float32(rng.uniform(0.92, 1.08)) + np.float32(rng.uniform(-8, 8))
    if rng.uniform() < 0.6:
        noise = rng.standard_normal((2, *x.shape[1:]), dtype=np.float32) * rng.uniform(0.5, 4.0)
        x += noise[np.arange(len(x)) % 2]
    return np.clip(x, 0, 255).astype(np.uint8)


def batch_scenes(rng: np.random.Generator, size: int) -> list[Scene]:
    """Scenes of a batch: groups of siblings, then independent ones."""
    scenes: list[Scene] = []
    for _ in range(int(size * SIBLING_SHARE) // SIBLINGS):
        shared = {name: int(rng.integers(len(values))) for name, values in ATTRIBUTES.items()}
        scenes += [draw_scene(rng, shared | own) for own in siblings(rng)]
    return scenes + [draw_scene(rng) for _ in range(size - len(scenes))]


def siblings(rng: np.random.Generator) -> list[dict[str, int]]:
    """What makes each of `SIBLINGS` scenes different from the others."""
    varied = str(rng.choice(SIBLING_ATTRIBUTES, p=SIBLING_WEIGHTS))
    if varied == "size":
        # There are two sizes, and things that grow or shrink have none.
        motion = int(rng.integers(len(SIZED_MOTIONS)))
        shapes = sibling_values(rng, "shape")[:2]
        sizes = range(len(ATTRIBUTES["size"]))
        return [{"motion": motion, "shape": a, "size": b} for a in shapes for b in sizes]
    return [{varied: value} for value in sibling_values(rng, varied)]


def sibling_values(rng: np.random.Generator, attribute: str) -> list[int]:
    """`SIBLINGS` different values of an attribute, those of a pair side by side."""
    values = ATTRIBUTES[attribute]
    if attribute not in PAIRS:
        return [int(v) for v in rng.choice(len(values), SIBLINGS, replace=False)]
    pairs = PAIRS[attribute]
    drawn = rng.choice(len(pairs), SIBLINGS // 2, replace=False)
    return [values.index(name) for pair in drawn for name in pairs[pair]]


class WorldBatches(Dataset):
    """Item n is training batch n of a configuration, whoever asks and whenever.

    A batch: `frames` u8 [B, T, H, W, 3], `logmel` f32 [B, T', 80, 1] (from `audio_from_step` on),
    `token_ids` i64 [B, 5, 16], `text_mask` f32 [B] (0 for a clip without any text).
    """

    def __init__(self, cfg: TrainConfig) -> None:
        self.train_cfg, self.cfg = cfg, cfg.model
        self.tokenizer = build_tokenizer(captions.vocabulary())
        self.log_mel = LogMel(cfg.model.audio_log)

    def __len__(self) -> int:
        return self.train_cfg.steps

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.train_cfg.seed, step])
        scenes = batch_scenes(rng, self.train_cfg.batch_size)
        audible = step >= self.train_cfg.audio_from_step
        clips = [augmented_clip(scene, self.cfg, rng, sound=audible) for scene in scenes]
        texts = [captions.candidates(scene, rng, CANDIDATES) for scene in scenes]
        batch = {}
        if audible:
            with torch.no_grad():
                pcm = torch.from_numpy(np.stack([clip.pcm for clip in clips]))
                batch["logmel"] = self.log_mel(pcm)
        return batch | {
            "frames": torch.from_numpy(np.stack([clip.frames for clip in clips])),
            "token_ids": torch.from_numpy(np.stack([self._token_ids(t) for t in texts])),
            "text_mask": torch.tensor([float(bool(t)) for t in texts]),
        }

    def _token_ids(self, texts: list[str]) -> np.ndarray:
        """i64 [5, 16]; padding alone where there is no text."""
        ids = np.zeros((CANDIDATES, self.cfg.max_words), dtype=np.int64)
        for row, text in zip(ids, texts, strict=False):
            row[:] = encode(self.tokenizer, text, self.cfg.max_words)
        return ids
