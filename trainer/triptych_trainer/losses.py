"""NCE and MIL-NCE (MMV specification, section 7), over the batches of all ranks."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .distributed import gather_with_gradient, rank, world_size

# The published value of a masked similarity: exp() of it is 0 in f32.
MASKED = -1e9
FORMS = ("asymmetric", "symmetric")


def mil_nce_loss(
    video: Tensor,
    text: Tensor,
    mask: Tensor | None = None,
    temperature: float = 0.07,
    form: str = "asymmetric",
) -> Tensor:
    """MIL-NCE of video [B, D] against L candidates each, text [B, L, D].

    `asymmetric`, MMV's: loss_i = logsumexp({s_ij} u {s_ji}) - logsumexp_l s_ii^l. A clip's own
    pairs occur twice in the denominator, so the floor is ln 2. `symmetric`: the sum of the two
    losses with one direction each in the denominator.

    `mask` [B] is 0 for clips without text: their columns leave every denominator, their own loss
    is 0, and the mean is over the others.

    With more ranks the negatives are those of all of them. The mean of the ranks' losses is the
    loss of the joined batch, and so is the mean of their gradients, which is what DDP takes.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form of the loss {form!r}")
    batch, candidates, dim = text.shape
    video, text = F.normalize(video, dim=-1), F.normalize(text, dim=-1)
    all_videos = gather_with_gradient(video)
    all_texts = gather_with_gradient(text.reshape(batch * candidates, dim))
    total, first = len(all_videos), rank() * batch
    # forward[i, j, l]: own clip i, text l of clip j. backward[j, i, l]: clip j, text l of own i.
    forward = (video @ all_texts.T).reshape(batch, total, candidates) / temperature
    backward = (all_videos @ text.reshape(-1, dim).T).reshape(total, batch, candidates)
    backward = backward / temperature
    valid = None
    if mask is not None:
        valid = mask.to(forward.dtype)
        all_valid = gather_with_gradient(valid)
        forward = forward.masked_fill(all_valid.reshape(1, total, 1) == 0, MASKED)
        backward = backward.masked_fill(valid.reshape(1, batch, 1) == 0, MASKED)
    own = forward[torch.arange(batch), torch.arange(first, first + batch)]
    positive = torch.logsumexp(own, dim=1)
    forward = forward.reshape(batch, -1)
    backward = backward.transpose(0, 1).reshape(batch, -1)
    if form == "asymmetric":
        loss = torch.logsumexp(torch.cat([forward, backward], dim=1), dim=1) - positive
    else:
        loss = torch.logsumexp(forward, dim=1) + torch.logsumexp(backward, dim=1) - 2 * positive
    if valid is None:
        return loss.mean()
    # An empty batch of texts gives 0, not NaN.
    return (loss * valid).sum() * world_size() / all_valid.sum().clamp(min=1.0)


def nce_loss(
    video: Tensor,
    audio: Tensor,
    temperature: float = 0.07,
    form: str = "asymmetric",
    mask: Tensor | None = None,
) -> Tensor:
    """NCE of video [B, D] against audio [B, D]: MIL-NCE with one candidate. `mask` [B] is 0 for
    clips without sound."""
    return mil_nce_loss(video, audio[:, None], mask, temperature, form)
