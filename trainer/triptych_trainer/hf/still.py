"""Families of pictures and texts in one space: a video is the mean of its frames' unit vectors."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .errors import Refused
from .parts import Feed, Tower
from .pictures import Picture

GOLDEN_SEED = 77
DEFAULT_FRAMES = 8
MOST_FRAMES = 64


class Folded(nn.Module):
    """Pixels u8 to the network's pictures, channels first."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self.scale = picture.scale
        # Not parameters: they belong to the graph's arithmetic.
        self.register_buffer("mean", torch.tensor(picture.mean).reshape(1, 3, 1, 1), False)
        self.register_buffer("std", torch.tensor(picture.std).reshape(1, 3, 1, 1), False)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames.to(torch.float32).permute(0, 3, 1, 2)
        return (x * self.scale - self.mean) / self.std


class OnePicture(nn.Module):
    """u8 [batch, H, W, 3] to a vector."""

    def __init__(self, picture: Picture, embed: Callable[[Tensor], Tensor], owner: nn.Module):
        super().__init__()
        self.folded, self.embed, self.owner = Folded(picture), embed, owner

    def forward(self, frames: Tensor) -> Tensor:
        return self.embed(self.folded(frames))


class MeanOfFrames(nn.Module):
    """u8 [batch, T, H, W, 3] to the mean of the frames' unit vectors, for any T."""

    def __init__(self, one: nn.Module) -> None:
        super().__init__()
        self.one = one

    def forward(self, frames: Tensor, *more: Tensor) -> Tensor:
        batch, count = frames.shape[:2]
        per_frame = tuple(m[:, None].expand(-1, count, *m.shape[1:]).flatten(0, 1) for m in more)
        vectors = unit(self.one(frames.flatten(0, 1), *per_frame))
        return vectors.reshape(batch, count, vectors.shape[-1]).mean(1)


def sampling_of(frames: int, window_secs: float) -> dict:
    """Frames spread over a window; the server may take another number of them."""
    if not 1 <= frames <= MOST_FRAMES:
        raise Refused(f"--frames must be from 1 to {MOST_FRAMES}, got {frames}")
    return {
        "rule": "spread",
        "frames": frames,
        "window_secs": window_secs,
        "frames_range": [1, MOST_FRAMES],
    }


def golden_counts(frames: int) -> list[int]:
    """Numbers of frames that the graph is proved with; the first is the exporter's example, for
    which it must not be 1."""
    return [max(2, frames), 1]


FRAMES_AXIS = {"frames": {1: "frames"}}


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def noise(shape: tuple[int, ...], seed: int = GOLDEN_SEED) -> np.ndarray:
    """u8 pictures that reach every weight: noise over a slow gradient."""
    rng = np.random.default_rng(seed)
    slow = np.linspace(0.0, 1.0, shape[-2])[:, None] * rng.uniform(64, 192, (*shape[:-3], 1, 1, 3))
    return np.clip(slow + rng.normal(64, 48, shape), 0, 255).astype(np.uint8)


def picture_towers(
    picture: Picture,
    space: str,
    embed: Callable[[Tensor], Tensor],
    owner: nn.Module,
    frames: int,
    window_secs: float,
) -> list[Tower]:
    """The video tower and the image tower of one vision network, which share their weights."""
    one = OnePicture(picture, embed, owner)
    height, width = picture.size
    sampling = sampling_of(frames, window_secs)

    @torch.no_grad()
    def image(feed: Feed) -> dict[str, np.ndarray]:
        pixels = picture.normalise(torch.from_numpy(feed["frames"])).permute(0, 3, 1, 2)
        return {space: torch.cat([embed(row[None]) for row in pixels]).numpy()}

    def video(feed: Feed) -> dict[str, np.ndarray]:
        rows = [image({"frames": clip})[space] for clip in feed["frames"]]
        units = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in rows]
        return {space: np.stack([v.mean(0) for v in units])}

    shared = {"picture": picture.manifest()}
    return [
        Tower(
            "video",
            "video",
            MeanOfFrames(one),
            {space: space},
            {**shared, "sampling": sampling},
            [{"frames": noise((2, n, height, width, 3))} for n in golden_counts(frames)],
            video,
            FRAMES_AXIS,
        ),
        Tower(
            "image",
            "image",
            one,
            {space: space},
            dict(shared),
            [{"frames": noise((2, height, width, 3), GOLDEN_SEED + 1)}],
            image,
        ),
    ]
