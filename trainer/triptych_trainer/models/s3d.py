"""S3D-G (MMV specification, section 2): separable 3D Inception with self gating.

Two forms compute the same with the same weights. `3d` uses 3D convolutions. `2d` writes a
1xKxK convolution as a 2D one over [B*T, C, H, W] and a Kx1x1 convolution as a (K, 1) one over
[B, C, T, H*W]: the form that is exported, because ONNX Runtime runs it faster.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norm import BatchNorm
from .padding import fixed_pads, pad_same, same_pads

# BatchNorms and gates start well open, so that the network starts out almost linear. With the usual
# biases of 0 the gradient grows by about a fifth per layer on its way back (no shortcuts here), to
# hundreds at the stem, and shape, motion and size were still at chance when colour was known.
INITIAL_BIAS = 2.0

# Output channels: b0 | b1 squeeze, b1 | b2 squeeze, b2 | b3, per Mixed block.
MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
POOL_AFTER = {"3c": ((3, 3, 3), (2, 2, 2)), "4f": ((2, 2, 2), (2, 2, 2))}


def scaled(channels: int, width: float) -> int:
    """Channels under a width multiplier: a multiple of 4, at least 4; width 1 changes nothing."""
    return channels if width == 1.0 else max(4, int(channels * width / 4 + 0.5) * 4)


def conv_same(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int, int], form: str
) -> Tensor:
    """SAME 3D convolution of x [B, C, T, H, W], in either form."""
    kernel = tuple(weight.shape[2:])
    if form == "2d" and kernel[0] == 1 and stride[0] == 1:
        return _spatial_2d(x, weight, bias, stride)
    if form == "2d" and kernel[1:] == (1, 1) and stride[1:] == (1, 1):
        return _temporal_2d(x, weight, bias, stride)
    if form == "2d":
        return _full_2d(x, weight, bias, stride)
    x, padding = pad_same(x, kernel, stride)
    return F.conv3d(x, weight, bias, stride=stride, padding=padding)


def _spatial_2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int, int]
) -> Tensor:
    b, c, t, h, w = x.shape
    frames = x.transpose(1, 2).reshape(b * t, c, h, w)
    frames, padding = pad_same(frames, weight.shape[3:], stride[1:])
    frames = F.conv2d(frames, weight.squeeze(2), bias, stride=stride[1:], padding=padding)
    return frames.reshape(b, t, *frames.shape[1:]).transpose(1, 2)


def _temporal_2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int, int]
) -> Tensor:
    b, c, t, h, w = x.shape
    kernel, step = (weight.shape[2], 1), (stride[0], 1)
    rows, padding = pad_same(x.reshape(b, c, t, h * w), kernel, step)
    rows = F.conv2d(rows, weight.squeeze(4), bias, stride=step, padding=padding)
    return rows.reshape(b, rows.shape[1], rows.shape[2], h, w)


def _full_2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int, int]
) -> Tensor:
    """A convolution over all three axes: the frames of each output time become channels."""
    kernel = tuple(weight.shape[2:])
    pads = same_pads(x.shape[2:], kernel, stride)
    x = F.pad(x, [0, 0, 0, 0, *pads[4:]])
    out_t = (x.shape[2] - kernel[0]) // stride[0] + 1
    taps = [x[:, :, dt : dt + (out_t - 1) * stride[0] + 1 : stride[0]] for dt in range(kernel[0])]
    stacked = torch.cat(taps, dim=1)
    folded = weight.transpose(1, 2).reshape(weight.shape[0], -1, 1, *kernel[1:])
    return _spatial_2d(stacked, folded, bias, (1, *stride[1:]))


def max_pool_same(
    x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int], pads_of=same_pads
) -> Tensor:
    """SAME max pooling, padded with -inf. Separable, so space and time are pooled in turn."""
    b, c, t, h, w = x.shape
    frames = x.transpose(1, 2).reshape(b * t, c, h, w)
    frames = max_pool_2d(frames, kernel[1:], stride[1:], pads_of)
    x = frames.reshape(b, t, c, *frames.shape[2:]).transpose(1, 2)
    if kernel[0] == 1:
        return x
    b, c, t, h, w = x.shape
    rows = max_pool_2d(x.reshape(b, c, t, h * w), (kernel[0], 1), (stride[0], 1), pads_of)
    return rows.reshape(b, c, rows.shape[2], h, w)


def max_pool_2d(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], pads_of=same_pads
) -> Tensor:
    pads = pads_of(x.shape[2:], kernel, stride)
    if pads[0] == pads[1] and pads[2] == pads[3]:
        return F.max_pool2d(x, kernel, stride, padding=(pads[2], pads[0]))
    return F.max_pool2d(F.pad(x, pads, value=float("-inf")), kernel, stride)


class Conv(nn.Module):
    """Convolution without bias -> BatchNorm -> ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        # Only a folded BatchNorm gives a bias.
        self.register_parameter("bias", None)
        self.bn: nn.Module = BatchNorm(outputs)
        nn.init.constant_(self.bn.bias, INITIAL_BIAS)
        self.stride = stride

    def forward(self, x: Tensor, form: str) -> Tensor:
        return F.relu(self.bn(conv_same(x, self.weight, self.bias, self.stride, form)))


def mean_over_clip(x: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B, C]. In two steps: ONNX Runtime adds the 40,000 numbers of a channel of
    the published size one after the other in f32, which cost a relative 2e-4 at the tower's end."""
    return x.mean(dim=(3, 4)).mean(dim=2)


class SelfGating(nn.Module):
    """Scales each channel by a sigmoid of a linear map of the channels' means over T, H, W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        nn.init.constant_(self.linear.bias, INITIAL_BIAS)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.linear(mean_over_clip(x)))
        return x * gate[:, :, None, None, None]


class Unit(nn.Module):
    """One SUnit3D: a convolution, or a separable pair of them, then the optional gate."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int, int] = (1, 1, 1),
        stride: tuple[int, int, int] = (1, 1, 1),
        *,
        separable: bool = False,
        gated: bool = False,
    ) -> None:
        super().__init__()
        if separable:
            spatial = Conv(inputs, outputs, (1, *kernel[1:]), (1, *stride[1:]))
            temporal = Conv(outputs, outputs, (kernel[0], 1, 1), (stride[0], 1, 1))
            self.convs = nn.ModuleList([spatial, temporal])
        else:
            self.convs = nn.ModuleList([Conv(inputs, outputs, kernel, stride)])
        self.gate = SelfGating(outputs) if gated else None

    def forward(self, x: Tensor, form: str) -> Tensor:
        for conv in self.convs:
            x = conv(x, form)
        return x if self.gate is None else self.gate(x)


class Mixed(nn.Module):
    """Inception block of four branches, concatenated on the channels."""

    def __init__(self, inputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        c0, c1a, c1b, c2a, c2b, c3 = channels
        sep = {"kernel": (3, 3, 3), "separable": True, "gated": True}
        self.b0 = Unit(inputs, c0, gated=True)
        self.b1a, self.b1b = Unit(inputs, c1a), Unit(c1a, c1b, **sep)
        self.b2a, self.b2b = Unit(inputs, c2a), Unit(c2a, c2b, **sep)
        self.b3 = Unit(inputs, c3, gated=True)
        self.outputs = c0 + c1b + c2b + c3

    def forward(self, x: Tensor, form: str) -> Tensor:
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        branches = [
            self.b0(x, form),
            self.b1b(self.b1a(x, form), form),
            self.b2b(self.b2a(x, form), form),
            self.b3(pooled, form),
        ]
        return torch.cat(branches, dim=1)


def space_to_depth(x: Tensor) -> Tensor:
    """[B, 3, T, H, W] -> [B, 24, T/2, H/2, W/2], channels in the order (dt, dy, dx, c)."""
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t // 2, 2, h // 2, 2, w // 2, 2)
    return x.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(b, 8 * c, t // 2, h // 2, w // 2)


class S3dG(nn.Module):
    """Video backbone: [B, 3, T, H, W] in [0, 1] -> [B, 1024 * width].

    `pool_padding` is `same` everywhere but for the public MIL-NCE port, which pads its strided
    pools by a `fixed` rule (equal where every size met is even, as at 224 pixels).
    """

    def __init__(
        self,
        width: float = 1.0,
        stem: str = "s2d",
        form: str = "2d",
        pool_padding: str = "same",
    ) -> None:
        super().__init__()
        self.stem_kind, self.form = stem, form
        self.pads_of = {"same": same_pads, "fixed": fixed_pads}[pool_padding]
        c = lambda channels: scaled(channels, width)  # noqa: E731
        if stem == "s2d":
            self.stem = Unit(24, c(64), (2, 4, 4))
        else:
            self.stem = Unit(3, c(64), (7, 7, 7), (2, 2, 2))
        self.conv_2b = Unit(c(64), c(64))
        self.conv_2c = Unit(c(64), c(192), (3, 3, 3), separable=True, gated=True)
        self.mixed, inputs = nn.ModuleDict(), c(192)
        for name, channels in MIXED.items():
            self.mixed[name] = Mixed(inputs, tuple(c(n) for n in channels))
            inputs = self.mixed[name].outputs
        self.dim = inputs

    def forward(self, x: Tensor) -> Tensor:
        folded = space_to_depth(x) if self.stem_kind == "s2d" else x
        if self.form == "3d":
            # Eager PyTorch on a CPU takes two thirds of the time this way, pools before all.
            folded = folded.contiguous(memory_format=torch.channels_last_3d)
        return self.after_stem(self.stem(folded, self.form))

    def after_stem(self, x: Tensor) -> Tensor:
        form = self.form
        x = max_pool_same(x, (1, 3, 3), (1, 2, 2), self.pads_of)
        x = self.conv_2c(self.conv_2b(x, form), form)
        x = max_pool_same(x, (1, 3, 3), (1, 2, 2), self.pads_of)
        for name, block in self.mixed.items():
            x = block(x, form)
            if name in POOL_AFTER:
                x = max_pool_same(x, *POOL_AFTER[name], self.pads_of)
        return mean_over_clip(x)
