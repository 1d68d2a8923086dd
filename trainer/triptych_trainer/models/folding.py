"""Inference form of a model: BatchNorms that follow a convolution or a linear map become part of
it. The pre-activation ResNet's own are left to the exporter, which sees them next to their
convolutions; in the 2D form of S3D reshapes stand between, so nothing else could fold those."""

import copy

import torch
from torch import Tensor, nn

from .heads import FacHeads, Mlp
from .mmv import Mmv
from .resnet import Block
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


FOLDED_PAIRS = {
    FacHeads: (
        ("video_fine_0", "video_fine_bn_0"),
        ("video_fine_1", "video_fine_bn_1"),
        ("coarse", "coarse_bn"),
    ),
    Mlp: (("linear_0", "bn_0"), ("linear_1", "bn_1")),
}


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """Replaces layers' tensors by folded ones; the model must be in eval mode."""
    for module in model.modules():
        if isinstance(module, Conv) and not isinstance(module.bn, nn.Identity):
            _fold_into(module, module.bn)
            module.bn = nn.Identity()
        for linear, bn in FOLDED_PAIRS.get(type(module), ()):
            if isinstance(getattr(module, bn), nn.Identity):
                continue
            _fold_into(getattr(module, linear), getattr(module, bn))
            setattr(module, bn, nn.Identity())
    return model


def folded(model: Mmv) -> Mmv:
    """A copy in eval mode whose video backbone and heads have no BatchNorm left. What folding does
    not change it shares with `model`: a large one is not held twice."""
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return fold(copy.deepcopy(model, shared).eval())


@torch.no_grad()
def in_f16_values(model: nn.Module) -> nn.Module:
    """A folded copy whose matrices and kernels have only values that f16 holds, still f32 tensors:
    the file can keep them in half the bytes and lose nothing. What is left of the BatchNorms, and
    biases, stay as they are."""
    model = fold(copy.deepcopy(model).eval())
    for module in model.modules():
        if isinstance(module, Block) and not isinstance(module.bn_1, nn.Identity):
            # The exporter would fold these behind our back, and the products are not f16.
            _fold_into(module.conv_0, module.bn_1)
            _fold_into(module.conv_1, module.bn_2)
            module.bn_1, module.bn_2 = nn.Identity(), nn.Identity()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            rounded = parameter.half().float()
            if not torch.isfinite(rounded).all():
                raise ValueError(f"{name} has values beyond the range of f16")
            parameter.copy_(rounded)
    return model
