"""ResNet50 v2 (pre-activation) for log-mel spectrograms (MMV specification, section 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .padding import pad_same, same_pads
from .s3d import BN_EPS, BN_MOMENTUM, scaled

BLOCKS = (3, 4, 6, 3)
CHANNELS = (256, 512, 1024, 2048)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class ConvSame(nn.Module):
    """SAME 2D convolution without bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.stride = (stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        x, padding = pad_same(x, self.weight.shape[2:], self.stride)
        return F.conv2d(x, self.weight, stride=self.stride, padding=padding)


class Block(nn.Module):
    """Pre-activation bottleneck. The shortcut leaves after BN+ReLU in the first block of a group,
    from the raw input elsewhere."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, project: bool) -> None:
        super().__init__()
        middle = outputs // 4
        self.bn_0, self.conv_0 = batch_norm(inputs), ConvSame(inputs, middle, 1)
        self.bn_1, self.conv_1 = batch_norm(middle), ConvSame(middle, middle, 3, stride)
        self.bn_2, self.conv_2 = batch_norm(middle), ConvSame(middle, outputs, 1)
        self.shortcut = ConvSame(inputs, outputs, 1, stride) if project else None

    def forward(self, x: Tensor) -> Tensor:
        p = F.relu(self.bn_0(x))
        shortcut = x if self.shortcut is None else self.shortcut(p)
        r = self.conv_0(p)
        r = self.conv_1(F.relu(self.bn_1(r)))
        return shortcut + self.conv_2(F.relu(self.bn_2(r)))


class AudioResNet50(nn.Module):
    """Audio backbone: log-mel [B, T', F, 1] -> [B, 2048 * width]. Time is the height axis."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.stem = ConvSame(1, scaled(64, width), 7, 2)
        self.groups, inputs = nn.ModuleList(), scaled(64, width)
        for index, (count, channels) in enumerate(zip(BLOCKS, CHANNELS, strict=True)):
            outputs = scaled(channels, width)
            blocks = []
            for n in range(count):
                stride = 2 if n == 0 and index > 0 else 1
                blocks.append(Block(inputs, outputs, stride, project=n == 0))
                inputs = outputs
            self.groups.append(nn.Sequential(*blocks))
        self.bn = batch_norm(inputs)
        self.dim = inputs

    def forward(self, logmel: Tensor) -> Tensor:
        x = self.stem(logmel.permute(0, 3, 1, 2))
        # No ReLU before the pool, so padding with 0 would be wrong.
        pads = same_pads(x.shape[2:], (3, 3), (2, 2))
        x = F.max_pool2d(F.pad(x, pads, value=float("-inf")), 3, 2)
        for group in self.groups:
            x = group(x)
        return F.relu(self.bn(x)).mean(dim=(2, 3))
