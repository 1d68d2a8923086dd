"""TensorFlow's SAME padding: it depends on the input size, and the extra goes to the end."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def same_pads(sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Pads for `F.pad` (last axis first): out = ceil(n / s), the odd one out at the end."""
    pads: list[int] = []
    for n, k, s in reversed(list(zip(sizes, kernel, stride, strict=True))):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pads += [total // 2, total - total // 2]
    return pads


def fixed_pads(sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Pads of the public MIL-NCE port: k - s split evenly whatever the size, then windows until the
    end. As many outputs as SAME; the windows start elsewhere where n is not a multiple of s."""
    pads: list[int] = []
    for n, k, s in reversed(list(zip(sizes, kernel, stride, strict=True))):
        low = max(k - s, 0) // 2
        pads += [low, max((-(-n // s) - 1) * s + k - n - low, 0)]
    return pads


def pad_same(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float = 0.0
) -> tuple[Tensor, list[int]]:
    """Pads what a convolution cannot pad itself; returns the symmetric rest as its `padding`.

    Where both sides of an axis are alike the convolution pads for free; only a lopsided
    axis costs a copy.
    """
    sizes = x.shape[-len(kernel) :]
    pads = same_pads(sizes, kernel, stride)
    if all(pads[i] == pads[i + 1] for i in range(0, len(pads), 2)):
        return x, pads[::2][::-1]
    return F.pad(x, pads, value=value), [0] * len(kernel)
