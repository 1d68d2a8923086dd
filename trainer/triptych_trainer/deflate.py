"""Deflation: a video network becomes an image network (the paper, section 3.3 and table 3).

On a clip that stands still, far from its ends, a temporal convolution is its kernel summed over
time, a temporal pool does nothing and a gate sees the mean over space. The temporal shift of TSM
only swaps its two channel groups there, so "shift off" here means the swap without the time, put
into the weights of the convolution behind it.

Near the ends SAME padding lets zeros in, and few frames are far from the ends of a clip. So this
naive deflation is only near. The paper re-learns the scale and offset of every BatchNorm, so that
the image network gives for a picture what the video network gives for the picture repeated.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import LOWER_RATE, TrainerError, check_loss
from .models.mmv import Mmv
from .models.norm import BatchNorm
from .models.resnet import SHIFT_FRACTION, TsmResNet50
from .models.s3d import Conv, S3dG
from .reading import of_file, read_torch


class ImageS3d(nn.Module):
    """S3D-G for one frame: [B, 3, H, W] in [0, 1] -> [B, 1024 * width]."""

    def __init__(self, video: S3dG) -> None:
        super().__init__()
        self.net = copy.deepcopy(video)
        self.net.form = "2d"
        for module in self.net.modules():
            if isinstance(module, Conv):
                module.weight = nn.Parameter(module.weight.detach().sum(dim=2, keepdim=True))
                module.stride = (1, *module.stride[1:])
        if video.stem_kind == "s2d":
            stem = self.net.stem.convs[0]
            outputs, _, one, height, width = stem.weight.shape
            # (dt, dy, dx, c): both frames of a pair are the same picture.
            halves = stem.weight.detach().reshape(outputs, 2, 12, one, height, width)
            stem.weight = nn.Parameter(halves.sum(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        if self.net.stem_kind == "s2d":
            b, c, h, w = x.shape
            x = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
            x = x.reshape(b, 4 * c, h // 2, w // 2)
        return self.net.after_stem(self.net.stem(x.unsqueeze(2), self.net.form))


class ImageTsm(nn.Module):
    """TSM-ResNet50 for one frame: [B, 3, H, W] in [0, 1] -> [B, 2048 * width]."""

    def __init__(self, video: TsmResNet50) -> None:
        super().__init__()
        self.net = copy.deepcopy(video)
        for group in self.net.groups:
            for block in group:
                block.shift = False
                weight = block.conv_0.weight.detach()
                block.conv_0.weight = nn.Parameter(weight[:, _swap(weight.shape[1])].clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.net.bn(self.net.maps(x))).mean(dim=(2, 3))


def _swap(channels: int) -> list[int]:
    """Where each channel comes from when the shifted groups change places; its own inverse."""
    n = channels // SHIFT_FRACTION
    every = list(range(channels))
    return every[channels - n :] + every[n : channels - n] + every[:n]


class Deflated(nn.Module):
    """Pictures to vectors: the deflated backbone under the video's own heads."""

    def __init__(self, model: Mmv) -> None:
        super().__init__()
        video = model.video_backbone
        self.backbone = ImageTsm(video) if isinstance(video, TsmResNet50) else ImageS3d(video)
        self.heads = copy.deepcopy(model.heads)
        self.cfg = model.cfg
        self.eval()

    def feature(self, image_bhwc: Tensor) -> Tensor:
        return self.backbone(_unit(image_bhwc).permute(0, 3, 1, 2))

    def embed_image(self, image_bhwc: Tensor) -> dict[str, Tensor]:
        """Pictures [B, H, W, 3], u8 or f32 in [0, 1]."""
        return self.heads.video(self.feature(image_bhwc))

    def learnt(self) -> dict[str, Tensor]:
        """What re-learning changed, as a small state dict."""
        names = {f"{name}.{leaf}" for name in self._norms() for leaf in ("weight", "bias")}
        return {k: v for k, v in self.backbone.state_dict().items() if k in names}

    def load_learnt(self, state: dict[str, Tensor]) -> "Deflated":
        if not isinstance(state, dict) or state.keys() != self.learnt().keys():
            raise TrainerError("the scales and offsets belong to another network")
        self.backbone.load_state_dict(state, strict=False)
        return self

    def load_file(self, path: Path) -> "Deflated":
        """What the command `deflate` wrote for this network."""
        state = read_torch(path, "what `deflate` wrote")
        with of_file(path, "the output of `deflate` for this checkpoint"):
            return self.load_learnt(state)

    def _norms(self) -> list[str]:
        return [n for n, m in self.backbone.named_modules() if isinstance(m, BatchNorm)]


def _unit(x: Tensor) -> Tensor:
    return x.to(torch.float32) / 255.0 if x.dtype == torch.uint8 else x


def inflate(image_bhwc: Tensor, frames: int) -> Tensor:
    """[B, H, W, 3] -> [B, T, H, W, 3], a clip that stands still."""
    return image_bhwc.unsqueeze(1).expand(-1, frames, -1, -1, -1)


@torch.no_grad()
def inflated_feature(model: Mmv, image_bhwc: Tensor) -> Tensor:
    clip = inflate(_unit(image_bhwc), model.cfg.frames).permute(0, 4, 1, 2, 3)
    return model.video_backbone(clip)


@dataclass(frozen=True)
class Relearning:
    """How scales and offsets are learnt."""

    steps: int = 600
    batch_size: int = 32
    lr: float = 2e-3
    log_every: int = 50


def relearn(
    model: Mmv, deflated: Deflated, images: Iterator[Tensor], how: Relearning, say=print
) -> list[float]:
    """Trains `deflated` in place: L1 between its features and those of the video network on the
    still clip. `images` gives batches u8 [B, H, W, 3]. Returns the loss of every step, relative to
    the size of the features.

    The statistics of the BatchNorms stay the video network's; its weights stay altogether.
    """
    model.eval()
    deflated.requires_grad_(False).eval()
    parameters = []
    for module in deflated.backbone.modules():
        if isinstance(module, BatchNorm):
            parameters += [module.weight.requires_grad_(), module.bias.requires_grad_()]
    optimizer, losses = torch.optim.Adam(parameters, lr=how.lr), []
    for step in range(how.steps):
        for group in optimizer.param_groups:
            group["lr"] = how.lr * 0.5 * (1 + math.cos(math.pi * step / how.steps))
        batch = next(images)
        want = inflated_feature(model, batch)
        loss = (deflated.feature(batch) - want).abs().mean() / want.abs().mean()
        check_loss(loss.item(), f"step {step}", f"{LOWER_RATE}, or look at the pictures")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % how.log_every == 0:
            recent = sum(losses[-how.log_every :]) / how.log_every
            say(f"step {step + 1}/{how.steps}  relative L1 {recent:.4f}")
    deflated.requires_grad_(False)
    return losses
