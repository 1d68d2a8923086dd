"""ResNet50 v2 (pre-activation): the audio backbone, and TSM-ResNet50 with its temporal shift
(MMV specification, section 3).

Two forms compute the same with the same weights. `2d` runs every frame as an image, [B*T, C, H, W]:
the form that is exported. `3d` keeps [B, C, T, H, W] and 1xKxK convolutions, as its twin in tests.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norm import BatchNorm
from .padding import pad_same
from .s3d import max_pool_2d, max_pool_same, scaled

BLOCKS = (3, 4, 6, 3)
CHANNELS = (256, 512, 1024, 2048)
SHIFT_FRACTION = 8
"""1/8 of the channels looks one frame ahead and 1/8 one frame back."""


class ConvSame(nn.Module):
    """SAME 2D convolution without bias; of each frame alone where x is [B, C, T, H, W]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        # Only a folded BatchNorm gives a bias.
        self.register_parameter("bias", None)
        self.stride = (stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 5:
            weight, stride = self.weight.unsqueeze(2), (1, *self.stride)
            x, padding = pad_same(x, weight.shape[2:], stride)
            return F.conv3d(x, weight, self.bias, stride=stride, padding=padding)
        x, padding = pad_same(x, self.weight.shape[2:], self.stride)
        return F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=padding)


def temporal_shift(x: Tensor, frames: int | None) -> Tensor:
    """The paper's shift, which swaps the places of the two channel groups.

    out[t] = [last n channels of t + 1 | the middle of t | first n channels of t - 1], n = C // 8,
    zeros beyond the ends. x is [B, C, T, H, W], or [B*T, C, H, W] with `frames` = T.
    """
    if x.dim() == 4:
        images = x.shape
        x = x.reshape(images[0] // frames, frames, *images[1:])
        return _shift(x, time=1, channel=2).reshape(images)
    return _shift(x, time=2, channel=1)


def _shift(x: Tensor, time: int, channel: int) -> Tensor:
    t, c = x.shape[time], x.shape[channel]
    n = c // SHIFT_FRACTION
    ahead, back = x.narrow(channel, c - n, n), x.narrow(channel, 0, n)
    nothing = torch.zeros_like(ahead.narrow(time, 0, 1))
    ahead = torch.cat([ahead.narrow(time, 1, t - 1), nothing], dim=time)
    back = torch.cat([nothing, back.narrow(time, 0, t - 1)], dim=time)
    return torch.cat([ahead, x.narrow(channel, n, c - 2 * n), back], dim=channel)


class Block(nn.Module):
    """Pre-activation bottleneck. The shortcut leaves after BN+ReLU in the first block of a group,
    from the raw input elsewhere; the shift touches the residual branch alone."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, project: bool, shift: bool = False
    ) -> None:
        super().__init__()
        middle = outputs // 4
        self.bn_0, self.conv_0 = BatchNorm(inputs), ConvSame(inputs, middle, 1)
        self.bn_1, self.conv_1 = BatchNorm(middle), ConvSame(middle, middle, 3, stride)
        self.bn_2, self.conv_2 = BatchNorm(middle), ConvSame(middle, outputs, 1)
        self.shortcut = ConvSame(inputs, outputs, 1, stride) if project else None
        self.shift = shift

    def forward(self, x: Tensor, frames: int | None = None) -> Tensor:
        p = F.relu(self.bn_0(x))
        shortcut = x if self.shortcut is None else self.shortcut(p)
        r = self.conv_0(temporal_shift(p, frames) if self.shift else p)
        r = self.conv_1(F.relu(self.bn_1(r)))
        return shortcut + self.conv_2(F.relu(self.bn_2(r)))


class ResNet50V2(nn.Module):
    """Images [N, C, H, W] (or clips [N, C, T, H, W]) -> maps before the last BN+ReLU."""

    def __init__(self, channels: int, width: float, *, shift: bool = False) -> None:
        super().__init__()
        self.stem = ConvSame(channels, scaled(64, width), 7, 2)
        self.groups, inputs = nn.ModuleList(), scaled(64, width)
        for index, (count, group_channels) in enumerate(zip(BLOCKS, CHANNELS, strict=True)):
            outputs = scaled(group_channels, width)
            blocks = []
            for n in range(count):
                stride = 2 if n == 0 and index > 0 else 1
                blocks.append(Block(inputs, outputs, stride, project=n == 0, shift=shift))
                inputs = outputs
            self.groups.append(nn.Sequential(*blocks))
        self.bn = BatchNorm(inputs)
        self.dim = inputs

    def maps(self, x: Tensor, frames: int | None = None) -> Tensor:
        x = self.pooled_stem(x)
        for group in self.groups:
            for block in group:
                x = block(x, frames)
        return x

    def pooled_stem(self, x: Tensor) -> Tensor:
        """The first BatchNorm's input. No ReLU before the pool, so 0 would be a wrong padding."""
        x = self.stem(x)
        if x.dim() == 5:
            return max_pool_same(x, (1, 3, 3), (1, 2, 2))
        return max_pool_2d(x, (3, 3), (2, 2))


class AudioResNet50(ResNet50V2):
    """Audio backbone: log-mel [B, T', F, 1] -> [B, 2048 * width]. Time is the height axis."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__(1, width)

    def forward(self, logmel: Tensor) -> Tensor:
        return F.relu(self.bn(self.maps(logmel.permute(0, 3, 1, 2)))).mean(dim=(2, 3))


class TsmResNet50(ResNet50V2):
    """Video backbone: [B, 3, T, H, W] in [0, 1] -> [B, 2048 * width]; the paper's x2 is width 2."""

    def __init__(self, width: float = 1.0, form: str = "2d") -> None:
        super().__init__(3, width, shift=True)
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        if self.form == "3d":
            return F.relu(self.bn(self.maps(x))).mean(dim=(3, 4)).mean(dim=2)
        images = x.transpose(1, 2).reshape(b * t, c, h, w)
        features = F.relu(self.bn(self.maps(images, t))).mean(dim=(2, 3))
        return features.reshape(b, t, -1).mean(dim=1)
