"""Towers as the exporter sees them, and the parts of a bundle."""

from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor, nn

from .config import ModelConfig
from .models.heads import GRAPHS
from .tokenizer import PAD_ID, UNKNOWN_ID


class TowerModule(nn.Module):
    """One tower as a graph: its argument is what the server sends, its results one per space."""

    def __init__(self, model: nn.Module, tower: "Tower") -> None:
        super().__init__()
        self.model, self.tower = model, tower

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        out = getattr(self.model, f"embed_{self.tower.name}")(rows)
        return tuple(out[space] for space in self.tower.outputs)


@dataclass(frozen=True)
class Tower:
    """How one tower is exported: `embed_<name>` of the model it belongs to."""

    name: str
    input: str
    dtype: str
    outputs: tuple[str, ...]
    precision: str = "f32"

    def __post_init__(self) -> None:
        if self.precision not in ("f32", "fp16", "int8"):
            raise ValueError(f"unknown precision {self.precision!r}")


INPUTS = {
    "video": ("frames", "u8"),
    "audio": ("pcm", "f32"),
    "text": ("token_ids", "i64"),
    "image": ("image", "u8"),
}


def tower_of(name: str, spaces: str, precision: str = "f32") -> Tower:
    """A tower of the head graph `spaces`; a picture goes wherever video does."""
    member = "video" if name == "image" else name
    outputs = tuple(s.name for s in GRAPHS[spaces] if member in s.members)
    return Tower(name, *INPUTS[name], outputs, precision)


TOWERS = tuple(tower_of(name, "fac") for name in ("video", "audio", "text"))
"""The towers of FAC spaces."""


def input_shape(tower: Tower, cfg: ModelConfig) -> list[int]:
    """The shape of one row of a tower's input."""
    return {
        "video": [cfg.frames, cfg.crop, cfg.crop, 3],
        "image": [cfg.crop, cfg.crop, 3],
        "audio": [cfg.samples],
        "text": [cfg.max_words],
    }[tower.name]


@dataclass
class Content:
    """What makes a bundle beside the model: everything that depends on where it comes from."""

    name: str
    description: str
    license: str
    inputs: dict[str, np.ndarray]
    """Golden rows by modality; a modality without rows is not exported."""
    texts: list[str]
    tokenizer: Tokenizer | None
    pad_id: int = PAD_ID
    unknown_id: int = UNKNOWN_ID
    training: dict = field(default_factory=dict)
    evaluation: dict = field(default_factory=dict)
    image: nn.Module | None = None
    """A deflated network with `embed_image`; without one, a picture is inflated."""
    precision: dict[str, str] = field(default_factory=dict)
    """`f32` (where not named), `fp16` or `int8` by tower."""
    calibration: dict[str, np.ndarray] = field(default_factory=dict)
    """Rows that int8 takes its ranges from; the golden rows where not named."""
    f16_weights: bool = False
    """Keep in f16 what f16 holds exactly (see `folding.in_f16_values`); computed in f32."""
    form: str = "auto"
    """How an S3D is written: `2d` is faster on CPUs, `3d` on CUDA
    (docs/measurements/gpu.md). `auto`: `3d` in fp16, which is for CUDA, and `2d` otherwise."""
