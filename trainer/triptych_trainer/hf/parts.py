"""What a family hands over: towers with their graphs to be, spaces, and where it comes from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

Feed = dict[str, np.ndarray]
"""Input rows by the server's name: frames, patch_grid, frame_count, pcm, pcm_samples, token_ids,
attention_mask."""


@dataclass
class Options:
    """What the person chose."""

    frames: int | None = None
    window_secs: float = 10.0
    precision: str = "f32"
    say: Callable[[str], None] = lambda _: None


@dataclass
class Space:
    name: str
    dim: int
    members: list[str]
    dims: list[int] = field(default_factory=list)

    def manifest(self) -> dict:
        more = {"dims": self.dims} if self.dims else {}
        return {"name": self.name, "dim": self.dim, **more, "members": self.members}


@dataclass
class Tower:
    """`module` takes the inputs in their order and returns one tensor per distinct output name.
    `reference` gives the same from transformers' own model, fed as its processor would."""

    name: str
    modality: str
    module: nn.Module
    outputs: dict[str, str]
    preprocessing: dict
    feeds: list[Feed]
    reference: Callable[[Feed], dict[str, np.ndarray]]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    precisions: list[str] = field(default_factory=lambda: ["f32", "f16", "bf16", "int8"])
    precision: str = "f32"
    allowed_error: float = 1e-6
    rounding: float | None = None
    """What rounding alone does to its vectors, as 1 - cosine, where that is more than allowed."""

    @property
    def inputs(self) -> list[str]:
        return list(self.feeds[0])

    @property
    def output_names(self) -> list[str]:
        return list(dict.fromkeys(self.outputs.values()))


@dataclass
class Family:
    """One imported folder. `files`: further files for the bundle, by name; `notes`: what was
    measured, by modality."""

    suffix: str
    spaces: list[Space]
    towers: list[Tower]
    source: dict
    description: str
    files: dict[str, bytes] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)
    notes: dict = field(default_factory=dict)

    def release(self) -> None:
        """Lets go of the networks; the graphs are written."""
        for tower in self.towers:
            tower.module = nn.Identity()
            tower.reference = lambda _: {}


def tensors(feed: Feed) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(rows)) for rows in feed.values())
