"""The public PyTorch S3D trained on HowTo100M with MIL-NCE: video and text in one 512-d space."""

from pathlib import Path

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import TrainerError
from ..models.mmv import Mmv
from ..models.s3d import MIXED
from ..reading import fill, read_torch

LICENSE = "not stated with the weights; ask their authors (antoine77340/S3D_HowTo100M)"
SPACE = "video_text"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors only (`weights_only`): the file's code is never run."""
    content = read_torch(path, "the PyTorch weights of a network")
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise TrainerError(f"{path} is not a state dict of tensors")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def config_of(weights: dict[str, Tensor], base: ModelConfig | None = None) -> ModelConfig:
    """The public model. 224 pixels are its own evaluation's crop."""
    needed = ("conv1.conv1", "text_module.word_embd", "text_module.fc1", "fc")
    if missing := [name for name in needed if f"{name}.weight" not in weights]:
        raise TrainerError(
            f"the file has no {missing[0]}.weight, so it is not the public S3D of MIL-NCE "
            "(s3d_howto100m.pth)"
        )
    stem = weights["conv1.conv1.weight"].shape
    if tuple(stem[1:]) != (24, 2, 4, 4):
        raise ValueError(
            f"the stem has the shape {tuple(stem)}; only the published space-to-depth form "
            "(64, 24, 2, 4, 4) is imported"
        )
    rows, word_dim = weights["text_module.word_embd.weight"].shape
    fields = (base or ModelConfig(resize=224, crop=224, bars="keep")).to_dict() | {
        "vocab_size": rows,
        "word_dim": word_dim,
        "text_hidden": weights["text_module.fc1.weight"].shape[0],
        "fine_dim": weights["fc.weight"].shape[0],
        "backbone": "s3d",
        "stem": "s2d",
        "spaces": "vt",
        "video_head": "linear",
        "pool_padding": "fixed",
    }
    return ModelConfig(**fields)


def _names() -> dict[str, str]:
    """Their convolution or linear module -> ours."""
    units = {"conv1": "stem", "conv_2b": "conv_2b", "conv_2c": "conv_2c"}
    gates = {"gating": "conv_2c"}
    branches = {
        "conv_b0": "b0",
        "conv_b1_a": "b1a",
        "conv_b1_b": "b1b",
        "conv_b2_a": "b2a",
        "conv_b2_b": "b2b",
        "conv_b3_b": "b3",
    }
    for block in MIXED:
        for theirs, ours in branches.items():
            units[f"mixed_{block}.{theirs}"] = f"mixed.{block}.{ours}"
        for theirs, ours in {"b0": "b0", "b1": "b1b", "b2": "b2b", "b3": "b3"}.items():
            gates[f"mixed_{block}.gating_{theirs}"] = f"mixed.{block}.{ours}"
    names = {}
    for theirs, ours in units.items():
        for n in (0, 1):
            names[f"{theirs}.conv{n + 1}"] = f"video_backbone.{ours}.convs.{n}"
            names[f"{theirs}.bn{n + 1}"] = f"video_backbone.{ours}.convs.{n}.bn"
    for theirs, ours in gates.items():
        names[f"{theirs}.fc"] = f"video_backbone.{ours}.gate.linear"
    return names | {
        "fc": f"heads.heads.video__{SPACE}",
        "text_module.word_embd": "text_backbone.words",
        "text_module.fc1": "text_backbone.linear",
        "text_module.fc2": f"heads.heads.text__{SPACE}",
    }


def build_model(weights: dict[str, Tensor], cfg: ModelConfig) -> Mmv:
    """The model with the public numbers, in evaluation mode; every tensor must have its place."""
    names, state = _names(), {}
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        if module not in names:
            raise KeyError(f"the file has {name!r}, which the published model lacks")
        state[f"{names[module]}.{leaf}"] = tensor
    with torch.device("meta"):
        model = Mmv(cfg)
    fill(model, state, "the file", "the public S3D of MIL-NCE", assign=True)
    return model.eval()
