"""Ranks of one run, and their communication."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import TrainerError


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """Forward: all ranks' rows, in rank order. Backward: the sum of all ranks' gradients of the
    own rows, because every rank computed with them."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[rank() * ctx.rows :][: ctx.rows]


def gather_with_gradient(x: Tensor) -> Tensor:
    """[B, ...] on each rank -> [ranks * B, ...] on all; B must be the same everywhere."""
    return x if world_size() == 1 else _Gather.apply(x)


def device_of(wanted: str) -> torch.device:
    """`auto` is CUDA where there is a device; each rank of a machine has its own."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainerError("PyTorch finds no CUDA device: use --device cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def ranks(wanted_device: str) -> Iterator[torch.device]:
    """Joins the ranks that `torchrun` started, if it did; gives the device of this one."""
    device = device_of(wanted_device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def mean_over_ranks(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every rank must have the same names."""
    values = {name: value.detach().float() for name, value in values.items()}
    if world_size() == 1:
        return values
    device = next(iter(values.values())).device
    joined = torch.stack([value.to(device) for value in values.values()])
    dist.all_reduce(joined)
    return dict(zip(values, joined / world_size(), strict=True))
