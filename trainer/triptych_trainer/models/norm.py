"""The paper's BatchNorm: biased, zero-debiased moving averages; across ranks on demand."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distributed import gather_with_gradient, world_size

BN_EPS = 1e-5
BN_MOMENTUM = 0.1


class BatchNorm(nn.Module):
    """Normalises axis 1 of [B, C, ...]. The names of its tensors are those of torch's BatchNorm.

    Two things differ from torch's, both in training only. The running variance is the biased one,
    and the averages are debiased: after n steps the step size is m / (1 - (1 - m)^n), so the first
    batch replaces the starting values instead of being mixed with them. With `sync` the statistics
    are those of the batches of all ranks together.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        self.sync, self.eps = False, BN_EPS

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, BN_EPS
            )
        if self.sync and world_size() > 1:
            return self._across_ranks(x)
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, BN_EPS)
        count = x.numel() // x.shape[1]
        self._track(mean, var * ((count - 1) / count))
        return y

    def _across_ranks(self, x: Tensor) -> Tensor:
        """One collective: every rank's count, mean and variance, joined exactly (not E[x^2])."""
        axes, dtype = [0, *range(2, x.dim())], x.dtype
        if dtype != torch.float64:
            # Under bf16 the statistics and the affine map stay f32, as in torch's own.
            x = x.float()
        local_var, local_mean = torch.var_mean(x, dim=axes, correction=0)
        count = torch.full_like(local_mean[:1], x.numel() // x.shape[1])
        packed = gather_with_gradient(torch.cat([count, local_mean, local_var])[None])
        counts, means, variances = packed.split([1, len(local_mean), len(local_var)], dim=1)
        share = (counts / counts.sum()).detach()
        mean = (share * means).sum(0)
        var = (share * (variances + (means - mean) ** 2)).sum(0)
        self._track(mean.detach(), var.detach())
        shape = [1, -1, *[1] * (x.dim() - 2)]
        scale = self.weight * torch.rsqrt(var + BN_EPS)
        return (x * scale.view(shape) + (self.bias - mean * scale).view(shape)).to(dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        self.num_batches_tracked += 1
        # In f64: at large counts (1 - m)^n must go to 0 without a detour.
        step = BN_MOMENTUM / (1.0 - (1.0 - BN_MOMENTUM) ** self.num_batches_tracked.double())
        step = step.to(mean.dtype)
        self.running_mean += step * (mean - self.running_mean)
        self.running_var += step * (var - self.running_var)


def use_sync_batch_norm(model: nn.Module, enabled: bool = True) -> nn.Module:
    """Statistics over all ranks in every BatchNorm of backbones and heads (the paper's choice)."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.sync = enabled
    return model
