"""Log-mel front ends as parts of a graph: sliced frames, and the transform in f64, because a quiet
band beside a loud one would drown in f32's rounding."""

import torch
from torch import Tensor
from torch.nn import functional


def framed(x: Tensor, size: int, hop: int, frames: int) -> Tensor:
    """[batch, S] to [batch, frames, size], every `hop` samples. A frame is some whole hops and the
    beginning of the next: slices, where an index would be a table of a million numbers."""
    whole, rest = divmod(size, hop)
    blocks = frames + whole + (rest > 0)
    x = functional.pad(x, (0, (whole + 2) * hop))[:, : blocks * hop]
    x = x.reshape(-1, blocks, hop)
    parts = [x[:, k : k + frames] for k in range(whole)]
    if rest:
        parts.append(x[:, whole : whole + frames, :rest])
    return torch.cat(parts, dim=-1)


def power(frames: Tensor, window: Tensor, size: int) -> Tensor:
    """The power spectrum, f64 [batch, frames, size // 2 + 1]."""
    spectrum = torch.fft.rfft(frames.to(torch.float64) * window, n=size, dim=-1)
    parts = torch.view_as_real(spectrum)
    return parts[..., 0] ** 2 + parts[..., 1] ** 2
