"""Names of the public (Haiku) checkpoints to the modules here, with their axis orders."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .mmv import Mmv
from .resnet import ResNet50V2, TsmResNet50
from .s3d import S3dG, Unit

ROOT = "text_audio_video"
BN = "__cross_replica_batch_norm"
UNUSED = ("audio2txt_embd", "txt2audio_embd")
"""Heads that exist in the checkpoints and that FAC does not use."""
Arrays = Mapping[str, Mapping[str, np.ndarray]]


class _Reader:
    """Copies arrays of one checkpoint into a state dict, each exactly once."""

    def __init__(self, params: Arrays, average: Mapping[str, np.ndarray]) -> None:
        self.params, self.average, self.state = params, average, {}
        self.used: set[str] = set()

    def _put(self, name: str, array: np.ndarray) -> None:
        # A copy of its own: what the pickle gave is read-only and goes away.
        self.state[name] = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))

    def _module(self, module: str) -> Mapping[str, np.ndarray]:
        if module not in self.params:
            raise KeyError(f"the checkpoint has no module {module!r}")
        self.used.add(module)
        return self.params[module]

    def words(self, name: str, module: str) -> None:
        self._put(name + ".weight", self._module(module)["embeddings"])

    def conv(self, name: str, module: str) -> None:
        """DHWIO or HWIO to OIDHW or OIHW."""
        w = self._module(module)["w"]
        self._put(name + ".weight", np.moveaxis(w, (-1, -2), (0, 1)))

    def linear(self, name: str, module: str) -> None:
        values = self._module(module)
        self._put(name + ".weight", values["w"].reshape(values["w"].shape[-2:]).T)
        if "b" in values:
            self._put(name + ".bias", values["b"])

    def batch_norm(self, name: str, module: str) -> None:
        """Inference statistics are the zero-debiased `average`, never `hidden`."""
        values = self._module(module)
        self._put(name + ".weight", values["scale"].reshape(-1))
        self._put(name + ".bias", values["offset"].reshape(-1))
        self._put(name + ".running_mean", self.average[f"{module}/~/mean_ema"].reshape(-1))
        self._put(name + ".running_var", self.average[f"{module}/~/var_ema"].reshape(-1))
        # A long history: training on does not let one batch replace the averages.
        self.state[name + ".num_batches_tracked"] = torch.tensor(1_000_000)


def state_dict_from_haiku(
    model: Mmv, params: Arrays, average: Mapping[str, np.ndarray]
) -> dict[str, Tensor]:
    """A state dict for `model` from the public layout {module: {name: array}}.

    `average` maps `<module>/~/mean_ema` and `.../var_ema` to the EMA's `average`. Every module of
    the checkpoint must be used, but for the heads that FAC leaves aside.
    """
    reader = _Reader(params, average)
    if isinstance(model.video_backbone, TsmResNet50):
        _resnet(
            reader,
            "video_backbone",
            model.video_backbone,
            base=f"{ROOT}/visual_module/~/TSMResNetV2",
            stem="tsm_resnet_stem",
            group="tsm_resnet_unit_{}",
            inner="",
        )
    else:
        _s3d(reader, model.video_backbone)
    _resnet(
        reader,
        "audio_backbone",
        model.audio_backbone,
        base=f"{ROOT}/audio_module/~/res_net_v2",
        stem="~/initial_conv",
        group="~/block_group_{}",
        inner="~/",
    )
    reader.words("text_backbone.words", f"{ROOT}/text_module/~/embed")
    reader.linear("text_backbone.linear", f"{ROOT}/text_module/~/text_conv1")
    _heads(reader)
    left = [m for m in params if m not in reader.used and not any(u in m for u in UNUSED)]
    if left:
        raise KeyError(f"the checkpoint has {len(left)} modules this model lacks, as {left[0]!r}")
    return reader.state


def _s3d(reader: _Reader, backbone: S3dG) -> None:
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


def _resnet(
    reader: _Reader,
    ours: str,
    backbone: ResNet50V2,
    *,
    base: str,
    stem: str,
    group: str,
    inner: str,
) -> None:
    """Audio and TSM hold the same blocks; only the names of stem, groups and scopes differ."""
    reader.conv(f"{ours}.stem", f"{base}/{stem}")
    for g, blocks in enumerate(backbone.groups):
        for b, block in enumerate(blocks):
            name, module = f"{ours}.groups.{g}.{b}", f"{base}/{group.format(g)}/block_{b}"
            for n in range(3):
                reader.conv(f"{name}.conv_{n}", f"{module}/{inner}conv_{n}")
                suffix = "" if n == 0 else f"_{n}"
                reader.batch_norm(f"{name}.bn_{n}", f"{module}/{BN}{suffix}")
            if block.shortcut is not None:
                reader.conv(f"{name}.shortcut", f"{module}/{inner}shortcut_conv")
    reader.batch_norm(f"{ours}.bn", f"{base}/{BN}")


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
