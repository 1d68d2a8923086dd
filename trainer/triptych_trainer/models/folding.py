"""Inference form of a model: BatchNorms that follow a convolution or a linear map become part of
it. The pre-activation ResNet's own are left to the exporter, which sees them next to their
convolutions; in the 2D form of S3D reshapes stand between, so nothing else could fold those."""

import copy

import torch
from torch import Tensor, nn

from .mmv import Mmv
from .s3d import Conv


def _scale_and_shift(bn: nn.Module) -> tuple[Tensor, Tensor]:
    """f64 (scale, shift) of an evaluated BatchNorm: y = x * scale + shift."""
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    return scale, bn.bias.double() - bn.running_mean.double() * scale


def _fold_into(layer: nn.Module, bn: nn.Module) -> None:
    scale, shift = _scale_and_shift(bn)
    weight = layer.weight.double() * scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
    bias = shift if layer.bias is None else layer.bias.double() * scale + shift
    layer.weight = nn.Parameter(weight.float(), requires_grad=False)
    layer.bias = nn.Parameter(bias.float(), requires_grad=False)


@torch.no_grad()
def folded(model: Mmv) -> Mmv:
    """A copy in eval mode whose video backbone and heads have no BatchNorm left."""
    model = copy.deepcopy(model).eval()
    for module in model.video_backbone.modules():
        if isinstance(module, Conv):
            _fold_into(module, module.bn)
            module.bn = nn.Identity()
    heads = model.heads
    for linear, bn in (
        ("video_fine_0", "video_fine_bn_0"),
        ("video_fine_1", "video_fine_bn_1"),
        ("coarse", "coarse_bn"),
    ):
        _fold_into(getattr(heads, linear), getattr(heads, bn))
        setattr(heads, bn, nn.Identity())
    return model
