"""Names of the public (Haiku) checkpoints to the modules here, with their axis orders."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .mmv import Mmv
from .resnet import AudioResNet50
from .s3d import S3dG, Unit

ROOT = "text_audio_video"
BN = "__cross_replica_batch_norm"
Arrays = Mapping[str, Mapping[str, np.ndarray]]


class _Reader:
    """Copies arrays of one checkpoint into a state dict, each exactly once."""

    def __init__(self, params: Arrays, average: Mapping[str, np.ndarray]) -> None:
        self.params, self.average, self.state = params, average, {}

    def _put(self, name: str, array: np.ndarray) -> None:
        self.state[name] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))

    def conv(self, name: str, module: str) -> None:
        """DHWIO or HWIO to OIDHW or OIHW."""
        w = self.params[module]["w"]
        self._put(name + ".weight", np.moveaxis(w, (-1, -2), (0, 1)))

    def linear(self, name: str, module: str) -> None:
        values = self.params[module]
        self._put(name + ".weight", values["w"].reshape(values["w"].shape[-2:]).T)
        if "b" in values:
            self._put(name + ".bias", values["b"])

    def batch_norm(self, name: str, module: str) -> None:
        """Inference statistics are the zero-debiased `average`, never `hidden`."""
        self._put(name + ".weight", self.params[module]["scale"].reshape(-1))
        self._put(name + ".bias", self.params[module]["offset"].reshape(-1))
        self._put(name + ".running_mean", self.average[f"{module}/~/mean_ema"].reshape(-1))
        self._put(name + ".running_var", self.average[f"{module}/~/var_ema"].reshape(-1))
        self.state[name + ".num_batches_tracked"] = torch.tensor(0)


def state_dict_from_haiku(
    model: Mmv, params: Arrays, average: Mapping[str, np.ndarray]
) -> dict[str, Tensor]:
    """A state dict for `model` (S3D-G) from the public layout {module: {name: array}}.

    `average` maps `<module>/~/mean_ema` and `.../var_ema` to the EMA's `average`.
    """
    reader = _Reader(params, average)
    _video(reader, model.video_backbone)
    _audio(reader, model.audio_backbone)
    words = params[f"{ROOT}/text_module/~/embed"]["embeddings"]
    reader._put("text_backbone.words.weight", words)
    reader.linear("text_backbone.linear", f"{ROOT}/text_module/~/text_conv1")
    _heads(reader)
    return reader.state


def _video(reader: _Reader, backbone: S3dG) -> None:
    base = f"{ROOT}/visual_module/~/S3D"
    names = {"stem": "Conv2d_1a_7x7", "conv_2b": "Conv2d_2b_1x1", "conv_2c": "Conv2d_2c_3x3"}
    for ours, theirs in names.items():
        _unit(reader, f"video_backbone.{ours}", f"{base}/{theirs}", getattr(backbone, ours))
    branches = {
        "b0": "Branch_0_Conv2d_0a_1x1",
        "b1a": "Branch_1_Conv2d_0a_1x1",
        "b1b": "Branch_1_Conv2d_0b_3x3",
        "b2a": "Branch_2_Conv2d_0a_1x1",
        "b2b": "Branch_2_Conv2d_0b_3x3",
        "b3": "Branch_3_Conv2d_0b_1x1",
    }
    for key, mixed in backbone.mixed.items():
        for ours, theirs in branches.items():
            name = f"video_backbone.mixed.{key}.{ours}"
            _unit(reader, name, f"{base}/Mixed_{key}/{theirs}", getattr(mixed, ours))


def _unit(reader: _Reader, name: str, module: str, unit: Unit) -> None:
    for n in range(len(unit.convs)):
        suffix = "" if n == 0 else f"_{n}"
        reader.conv(f"{name}.convs.{n}", f"{module}/~/conv3_d{suffix}")
        reader.batch_norm(f"{name}.convs.{n}.bn", f"{module}/{BN}{suffix}")
    if unit.gate is not None:
        reader.linear(f"{name}.gate.linear", f"{module}/self_gating")


def _audio(reader: _Reader, backbone: AudioResNet50) -> None:
    base = f"{ROOT}/audio_module/~/res_net_v2"
    reader.conv("audio_backbone.stem", f"{base}/~/initial_conv")
    for g, group in enumerate(backbone.groups):
        for b, block in enumerate(group):
            name, module = f"audio_backbone.groups.{g}.{b}", f"{base}/~/block_group_{g}/block_{b}"
            for n in range(3):
                reader.conv(f"{name}.conv_{n}", f"{module}/~/conv_{n}")
                suffix = "" if n == 0 else f"_{n}"
                reader.batch_norm(f"{name}.bn_{n}", f"{module}/{BN}{suffix}")
            if block.shortcut is not None:
                reader.conv(f"{name}.shortcut", f"{module}/~/shortcut_conv")
    reader.batch_norm("audio_backbone.bn", f"{base}/{BN}")


def _heads(reader: _Reader) -> None:
    base = f"{ROOT}/~_get_pair_embedding_heads"
    reader.linear("heads.video_fine_0", f"{base}/vid2audio_embd/final_projection_inner")
    reader.batch_norm("heads.video_fine_bn_0", f"{base}/vid2audio_embd/{BN}")
    reader.linear("heads.video_fine_1", f"{base}/vid2audio_embd/final_projection")
    reader.batch_norm("heads.video_fine_bn_1", f"{base}/vid2audio_embd/{BN}_1")
    reader.linear("heads.coarse", f"{base}/vis_embd/final_projection")
    reader.batch_norm("heads.coarse_bn", f"{base}/vis_embd/{BN}")
    reader.linear("heads.audio_fine", f"{base}/audio_embd/final_projection")
    reader.linear("heads.text_coarse", f"{base}/txt_embd/final_projection")
