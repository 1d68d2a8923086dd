"""Backbones against slow, straightforward restatements, at sizes the golden vectors do not have."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support import WIDTHS, check, golden_lib, kind_config, random_statistics
from torch.nn import functional as F

from triptych_trainer.config import ModelConfig
from triptych_trainer.models.haiku_names import state_dict_from_haiku
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.models.norm import BN_EPS, BatchNorm
from triptych_trainer.models.resnet import Block, TsmResNet50, temporal_shift
from triptych_trainer.models.s3d import S3dG


def pad(x: torch.Tensor, kernel: int, stride: int, value: float) -> torch.Tensor:
    """TensorFlow's SAME of [C, H, W], from its definition."""
    edges = []
    for n in (x.shape[2], x.shape[1]):
        total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
        edges += [total // 2, total - total // 2]
    return F.pad(x, edges, value=value)


def norm_relu(x: torch.Tensor, bn: BatchNorm) -> torch.Tensor:
    column = lambda v: v.reshape(-1, 1, 1)  # noqa: E731
    x = (x - column(bn.running_mean)) / torch.sqrt(column(bn.running_var) + BN_EPS)
    return torch.clamp(x * column(bn.weight) + column(bn.bias), min=0)


def conv(x: torch.Tensor, module) -> torch.Tensor:
    stride, kernel = module.stride[0], module.weight.shape[-1]
    return F.conv2d(pad(x, kernel, stride, 0.0)[None], module.weight, stride=stride)[0]


def shifted(frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """Channel by channel, as the specification writes it."""
    out = []
    for t in range(len(frames)):
        c, here = frames[t].shape[0], torch.zeros_like(frames[t])
        n = c // 8
        for k in range(c):
            if k < n and t + 1 < len(frames):
                here[k] = frames[t + 1][c - n + k]
            elif n <= k < c - n:
                here[k] = frames[t][k]
            elif k >= c - n and t > 0:
                here[k] = frames[t - 1][k - (c - n)]
        out.append(here)
    return out


def slow_block(frames: list[torch.Tensor], block: Block) -> list[torch.Tensor]:
    p = [norm_relu(x, block.bn_0) for x in frames]
    short = frames if block.shortcut is None else [conv(x, block.shortcut) for x in p]
    r = [conv(x, block.conv_0) for x in shifted(p)]
    r = [conv(norm_relu(x, block.bn_1), block.conv_1) for x in r]
    r = [conv(norm_relu(x, block.bn_2), block.conv_2) for x in r]
    return [a + b for a, b in zip(short, r, strict=True)]


def slow_tsm(clip: torch.Tensor, net: TsmResNet50) -> torch.Tensor:
    """One clip [3, T, H, W], frame by frame."""
    frames = [conv(clip[:, t], net.stem) for t in range(clip.shape[1])]
    frames = [F.max_pool2d(pad(x, 3, 2, -math.inf)[None], 3, 2)[0] for x in frames]
    for group in net.groups:
        for block in group:
            frames = slow_block(frames, block)
    return torch.stack([norm_relu(x, net.bn).mean(dim=(1, 2)) for x in frames]).mean(0)


@pytest.mark.parametrize("size", [(200, 200), (58, 75)])
@pytest.mark.parametrize("form", ["2d", "3d"])
def test_tsm_is_the_slow_tsm(size: tuple[int, int], form: str) -> None:
    torch.manual_seed(0)
    net = TsmResNet50(width=0.125, form=form).double().eval()
    random_statistics(net)
    clip = torch.rand(2, 3, 4, *size, dtype=torch.float64)
    with torch.no_grad():
        want = torch.stack([slow_tsm(one, net) for one in clip])
        check(net(clip), want, "tsm")


def test_shift_swaps_the_groups_and_zeroes_the_ends() -> None:
    x = torch.arange(1.0, 49.0).reshape(1, 16, 3, 1, 1)
    y = temporal_shift(x, None)
    assert torch.equal(y[0, :2, :2, 0, 0], x[0, -2:, 1:, 0, 0])
    assert torch.equal(y[0, 2:-2], x[0, 2:-2])
    assert torch.equal(y[0, -2:, 1:, 0, 0], x[0, :2, :-1, 0, 0])
    assert not y[0, :2, -1].any() and not y[0, -2:, 0].any()
    images = x.transpose(1, 2).reshape(3, 16, 1, 1)
    assert torch.equal(temporal_shift(images, 3).reshape(1, 3, 16, 1, 1).transpose(1, 2), y)


@pytest.mark.parametrize("kind", list(WIDTHS))
def test_every_public_tensor_has_its_place(goldens: Path, kind: str) -> None:
    """Names and shapes of the whole public checkpoint, without its numbers."""
    listing = golden_lib(goldens).read_list(goldens.parent / f"params_{kind}.txt")
    params, average = {}, {}
    for tag, module, name, shape, _ in listing:
        value = np.broadcast_to(np.float32(0.5), shape)
        if tag == "params":
            params.setdefault(module, {})[name] = value
        elif name == "average":
            average[module] = value
    with torch.device("meta"):
        model = Mmv(kind_config(kind))
    state = state_dict_from_haiku(model, params, average)
    want = model.state_dict()
    assert state.keys() == want.keys()
    assert all(state[k].shape == want[k].shape for k in want)
    params["text_audio_video/something_else"] = {"w": np.zeros((1, 1))}
    with pytest.raises(KeyError, match="something_else"):
        state_dict_from_haiku(model, params, average)


def slow_pool(x: torch.Tensor, kernel: tuple, stride: tuple) -> torch.Tensor:
    """The public MIL-NCE port's pool: zeros by k - s, then a pool in ceiling mode."""
    edges = []
    for k, s in reversed(list(zip(kernel, stride, strict=True))):
        edges += [max(k - s, 0) // 2, max(k - s, 0) - max(k - s, 0) // 2]
    return F.max_pool3d(F.pad(x, edges), kernel, stride, ceil_mode=True)


@pytest.mark.parametrize("size", [(8, 25, 26), (5, 13, 14), (2, 7, 12)])
def test_pools_of_the_public_milnce_port(size: tuple) -> None:
    from triptych_trainer.models.padding import fixed_pads
    from triptych_trainer.models.s3d import max_pool_same

    torch.manual_seed(0)
    x = torch.rand(1, 2, *size)
    for kernel, stride in [
        ((1, 3, 3), (1, 2, 2)),
        ((3, 3, 3), (2, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
    ]:
        want = slow_pool(x, kernel, stride)
        assert torch.equal(max_pool_same(x, kernel, stride, fixed_pads), want)


def test_even_sizes_pool_alike() -> None:
    torch.manual_seed(0)
    same, fixed = S3dG(0.125).eval(), S3dG(0.125, pool_padding="fixed").eval()
    fixed.load_state_dict(same.state_dict())
    with torch.no_grad():
        even, odd = torch.rand(1, 3, 16, 64, 64), torch.rand(1, 3, 16, 200, 200)
        assert torch.equal(same(even), fixed(even))
        assert not torch.equal(same(odd), fixed(odd))


def test_widths_and_sizes() -> None:
    for backbone, width, dim in [("s3d", 0.25, 256), ("tsm", 0.25, 512), ("tsm", 2.0, 4096)]:
        with torch.device("meta"):
            model = Mmv(ModelConfig(backbone=backbone, video_width=width, vocab_size=8))
        assert model.video_backbone.dim == dim


@pytest.mark.parametrize("size", [(4, 25, 25), (2, 13, 13), (3, 12, 50)])
def test_pools_pad_with_nothing_at_the_end_first(size: tuple) -> None:
    """SAME written out: 25 and 13, met at 200 pixels, get another padding than 28 and 14."""
    from triptych_trainer.models.s3d import max_pool_same

    torch.manual_seed(0)
    x = torch.randn(1, 2, *size)
    for kernel, stride in [((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))]:
        edges = []
        for n, k, s in reversed(list(zip(size, kernel, stride, strict=True))):
            total = max((math.ceil(n / s) - 1) * s + k - n, 0)
            edges += [total // 2, total - total // 2]
        want = F.max_pool3d(F.pad(x, edges, value=-math.inf), kernel, stride)
        assert torch.equal(max_pool_same(x, kernel, stride), want)
