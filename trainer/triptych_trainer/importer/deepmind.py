"""The published MMV checkpoints: mmv_s3d.pkl, mmv_tsm_resnet_x1.pkl, mmv_tsm_resnet_x2.pkl
(MMV specification, sections 3, 10 and 11)."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..config import ModelConfig
from ..models.haiku_names import ROOT, state_dict_from_haiku
from ..models.mmv import Mmv
from . import restricted

LICENSE = "CC BY-NC 4.0"
TSM_STEM = f"{ROOT}/visual_module/~/TSMResNetV2/tsm_resnet_stem"
S3D_STEM = f"{ROOT}/visual_module/~/S3D/Conv2d_1a_7x7/~/conv3_d"
WORDS = f"{ROOT}/text_module/~/embed"


@dataclass
class Checkpoint:
    """`average` maps `<module>/~/mean_ema` and `.../var_ema` to the EMA's `average`."""

    params: dict[str, dict[str, np.ndarray]]
    average: dict[str, np.ndarray]

    @property
    def kind(self) -> str:
        if S3D_STEM in self.params:
            return "s3d"
        if TSM_STEM not in self.params:
            raise restricted.RefusedError("neither an S3D nor a TSM checkpoint of MMV")
        width = self.params[TSM_STEM]["w"].shape[-1] / 64
        return "tsm-resnet50" if width == 1 else f"tsm-resnet50x{width:g}"


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads {'params', 'state'} without executing the pickle."""
    content = restricted.load(path)
    if not isinstance(content, dict) or not {"params", "state"} <= content.keys():
        raise restricted.RefusedError(f"{path} does not contain 'params' and 'state'")
    state = restricted.two_levels(content["state"], "state")
    average = {name: ema["average"] for name, ema in state.items() if "average" in ema}
    return Checkpoint(restricted.two_levels(content["params"], "params"), average)


def config_of(checkpoint: Checkpoint, base: ModelConfig | None = None) -> ModelConfig:
    """The model a checkpoint's shapes describe; sizes of the input come from `base`."""
    params = checkpoint.params
    base = base or ModelConfig(bars="keep")
    heads = f"{ROOT}/~_get_pair_embedding_heads"
    vocab, word_dim = params[WORDS]["embeddings"].shape
    common = {
        "vocab_size": vocab,
        "word_dim": word_dim,
        "text_hidden": params[f"{ROOT}/text_module/~/text_conv1"]["w"].shape[-1],
        "fine_dim": params[f"{heads}/audio_embd/final_projection"]["w"].shape[-1],
        "coarse_dim": params[f"{heads}/txt_embd/final_projection"]["w"].shape[-1],
    }
    if checkpoint.kind == "s3d":
        kernel = params[S3D_STEM]["w"].shape
        return replace(base, **common, backbone="s3d", stem="s2d" if kernel[-2] == 24 else "rgb")
    width = params[TSM_STEM]["w"].shape[-1] / 64
    return replace(base, **common, backbone="tsm", video_width=width)


def build_model(checkpoint: Checkpoint, cfg: ModelConfig) -> Mmv:
    """The model with the checkpoint's numbers, in evaluation mode. Empties `checkpoint.params`, so
    that a large one is not held twice."""
    with torch.device("meta"):
        model = Mmv(cfg)
    state = state_dict_from_haiku(model, checkpoint.params, checkpoint.average)
    checkpoint.params.clear()
    model.load_state_dict(state, assign=True)
    # The front end's fixed numbers come from the code and are not in the state.
    model.log_mel = type(model.log_mel)(cfg.audio_log)
    return model.eval()
