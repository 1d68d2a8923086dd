"""NCE and MIL-NCE (MMV specification, section 7)."""

import torch
from torch import Tensor
from torch.nn import functional as F

# The published value of a masked similarity: exp() of it is 0 in f32.
MASKED = -1e9


def mil_nce_loss(
    video: Tensor, text: Tensor, mask: Tensor | None = None, temperature: float = 0.07
) -> Tensor:
    """MIL-NCE of video [B, D] against L candidates each, text [B, L, D].

    loss_i = logsumexp({s_ij} u {s_ji}) - logsumexp_l s_ii^l: a clip's own pairs stand twice in
    the denominator, so the floor is ln 2. `mask` [B] is 0 for clips without text: their columns
    leave every denominator, their own loss is 0, and the mean is over the others.
    """
    batch, candidates, dim = text.shape
    video, text = F.normalize(video, dim=-1), F.normalize(text, dim=-1)
    s = (video @ text.reshape(-1, dim).T).reshape(batch, batch, candidates) / temperature
    if mask is not None:
        s = s.masked_fill(mask.reshape(1, batch, 1) == 0, MASKED)
    own = torch.diagonal(s, dim1=0, dim2=1).T
    both = torch.cat([s.reshape(batch, -1), s.transpose(0, 1).reshape(batch, -1)], dim=1)
    loss = torch.logsumexp(both, dim=1) - torch.logsumexp(own, dim=1)
    if mask is None:
        return loss.mean()
    valid = mask.to(loss.dtype)
    # An empty batch of texts gives 0, not NaN.
    return (loss * valid).sum() / valid.sum().clamp(min=1.0)


def nce_loss(video: Tensor, audio: Tensor, temperature: float = 0.07) -> Tensor:
    """NCE of video [B, D] against audio [B, D]: MIL-NCE with one candidate."""
    return mil_nce_loss(video, audio[:, None], None, temperature)
