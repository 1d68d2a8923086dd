"""The published MMV networks restated from their description, with the names, the axes and the
paddings of the public checkpoints: the other side of the import's tests.

Plain functions over {module: {name: array}}. What a checkpoint lacks is made up on the way, weights
from a seed and statistics from what flows by, so the same description also writes checkpoints in
the public format, of any width.
"""

import math
import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = "text_audio_video"
BN = "__cross_replica_batch_norm"
HEADS = f"{ROOT}/~_get_pair_embedding_heads"
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
Arrays = dict[str, dict[str, np.ndarray]]


def same(x: Tensor, kernel: tuple, stride: tuple, value: float) -> Tensor:
    """TensorFlow's SAME: ceil(n / s) outputs, and of the padding the odd one out at the end."""
    pads: list[int] = []
    for n, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((math.ceil(n / s) - 1) * s + k - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def max_pool(x: Tensor, kernel: tuple, stride: tuple) -> Tensor:
    pool = F.max_pool3d if x.dim() == 5 else F.max_pool2d
    return pool(same(x, kernel, stride, -math.inf), kernel, stride)


class PublicMmv:
    """One of the three networks. `width` is TSM's own multiplier, 2 for x2; the others exist so
    that tests can be small."""

    def __init__(
        self,
        backbone: str,
        params: Arrays | None = None,
        average: dict[str, np.ndarray] | None = None,
        *,
        width: float = 1.0,
        audio_width: float = 1.0,
        rgb: bool = False,
        words: int = 512,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.backbone, self.width, self.audio_width, self.rgb = backbone, width, audio_width, rgb
        self.params, self.average, self.words = params or {}, average or {}, words
        self.made_up = params is None
        self.rng, self.dtype = np.random.default_rng(seed), dtype
        if self.made_up:
            self._make_up()

    def _make_up(self) -> None:
        noise = lambda *shape: torch.from_numpy(self.rng.random(shape, np.float32))  # noqa: E731
        self.video(noise(2, 4, 64, 64, 3))
        self.audio(3 * noise(2, 40, 80, 1))
        self.text(torch.zeros(1, 16, dtype=torch.long))
        # Two heads that are in the files and that nothing uses.
        sound = self.params[f"{HEADS}/audio_embd/final_projection"]["w"].shape[0]
        self.linear(f"{HEADS}/audio2txt_embd/final_projection", noise(1, sound), 512)
        self.linear(f"{HEADS}/txt2audio_embd/final_projection", noise(1, 2048), 512)
        self.made_up = False

    def write(self, path: Path) -> Path:
        state = {
            module: {
                "average": average,
                "hidden": average * np.float32(1 - 0.9**5),
                "counter": np.array(5, np.int32),
            }
            for module, average in self.average.items()
        }
        path.write_bytes(pickle.dumps({"params": self.params, "state": state}, protocol=4))
        return path

    # The layers.

    def _param(self, module: str, name: str, shape: tuple, low: float, high: float) -> Tensor:
        values = self.params.setdefault(module, {}) if self.made_up else self.params[module]
        if self.made_up:
            values[name] = self.rng.uniform(low, high, shape).astype(np.float32)
        assert values[name].shape == shape, (module, name)
        return torch.from_numpy(np.array(values[name])).to(self.dtype)

    def _conv(self, module: str, x: Tensor, outputs: int, kernel: tuple, stride: tuple) -> Tensor:
        bound = math.sqrt(6.0 / (math.prod(kernel) * x.shape[1]))
        w = self._param(module, "w", (*kernel, x.shape[1], outputs), -bound, bound)
        axes = (len(kernel) + 1, len(kernel), *range(len(kernel)))
        convolve = F.conv3d if len(kernel) == 3 else F.conv2d
        return convolve(same(x, kernel, stride, 0.0), w.permute(axes), stride=stride)

    def _norm(self, module: str, x: Tensor) -> Tensor:
        """BatchNorm; the arrays have the axes of the data, channels last."""
        shape = (*[1] * (x.dim() - 1), x.shape[1])
        if self.made_up:
            var, mean = torch.var_mean(x, dim=[0, *range(2, x.dim())], correction=0)
            # A batch of two of the same number has none.
            statistics = {"mean": mean, "var": var.clamp(min=0.05)}
            for name, value in statistics.items():
                self.average[f"{module}/~/{name}_ema"] = value.float().numpy().reshape(shape)
        column = (1, -1, *[1] * (x.dim() - 2))
        scale = self._param(module, "scale", shape, 0.75, 1.25).reshape(column)
        offset = self._param(module, "offset", shape, -0.2, 0.2).reshape(column)
        mean, var = (
            torch.tensor(self.average[f"{module}/~/{name}_ema"]).to(self.dtype).reshape(column)
            for name in ("mean", "var")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + offset

    def linear(self, module: str, x: Tensor, outputs: int, *, bias: bool = True) -> Tensor:
        bound = math.sqrt(3.0 / x.shape[1]) * (3 if module.endswith("self_gating") else 1)
        y = x.to(self.dtype) @ self._param(module, "w", (x.shape[1], outputs), -bound, bound)
        return y + self._param(module, "b", (outputs,), -0.1, 0.1) if bias else y

    # The towers; each gives its feature and its vectors.

    def video(self, clip_bthwc: Tensor) -> dict[str, Tensor]:
        """Frames in [0, 1]."""
        x = clip_bthwc.to(self.dtype).permute(0, 4, 1, 2, 3)
        with torch.no_grad():
            feature = self._s3d(x) if self.backbone == "s3d" else self._tsm(x)
            head = f"{HEADS}/vid2audio_embd"
            h = self.linear(f"{head}/final_projection_inner", feature, 512)
            h = F.relu(self._norm(f"{head}/{BN}", h))
            h = self.linear(f"{head}/final_projection", h, 512, bias=False)
            fine = self._norm(f"{head}/{BN}_1", h)
            return {"feature": feature, "fine": fine, "coarse": self._coarse(fine)}

    def audio(self, logmel_btf1: Tensor) -> dict[str, Tensor]:
        base = f"{ROOT}/audio_module/~/res_net_v2"
        with torch.no_grad():
            x = logmel_btf1.to(self.dtype).permute(0, 3, 1, 2)
            x = self._resnet(x, base, "~/initial_conv", "~/block_group_{}", "~/", self.audio_width)
            feature = x.mean(dim=(2, 3))
            fine = self.linear(f"{HEADS}/audio_embd/final_projection", feature, 512)
            # The coarse head is the video's, and is not made up a second time.
            made_up, self.made_up = self.made_up, False
            coarse = self._coarse(fine)
            self.made_up = made_up
            return {"feature": feature, "fine": fine, "coarse": coarse}

    def text(self, ids: Tensor) -> dict[str, Tensor]:
        base = f"{ROOT}/text_module/~"
        table = self._param(f"{base}/embed", "embeddings", (self.words, 300), -0.35, 0.35)
        w = self._param(f"{base}/text_conv1", "w", (1, 300, 2048), -0.1, 0.1)[0]
        b = self._param(f"{base}/text_conv1", "b", (2048,), -0.1, 0.1)
        feature = F.relu(table[ids] @ w + b).amax(dim=1)
        coarse = self.linear(f"{HEADS}/txt_embd/final_projection", feature, 256)
        return {"feature": feature, "coarse": coarse}

    def _coarse(self, fine: Tensor) -> Tensor:
        h = self.linear(f"{HEADS}/vis_embd/final_projection", F.relu(fine), 256)
        return self._norm(f"{HEADS}/vis_embd/{BN}", h)

    # S3D-G.

    def _width(self, channels: int) -> int:
        fours = math.floor(channels * self.width / 4 + 0.5)
        return channels if self.width == 1 else 4 * max(1, fours)

    def _unit(self, name: str, x: Tensor, channels: int, kernel=(1, 1, 1), **more) -> Tensor:
        base, outputs = f"{ROOT}/visual_module/~/S3D/{name}", self._width(channels)
        stride = more.get("stride", (1, 1, 1))
        steps = [(kernel, stride)]
        if more.get("separable"):
            steps = [((1, *kernel[1:]), (1, *stride[1:])), ((kernel[0], 1, 1), (stride[0], 1, 1))]
        for n, (size, step) in enumerate(steps):
            suffix = f"_{n}" * (n > 0)
            x = self._conv(f"{base}/~/conv3_d{suffix}", x, outputs, size, step)
            x = F.relu(self._norm(f"{base}/{BN}{suffix}", x))
        if more.get("gated"):
            gate = self.linear(f"{base}/self_gating", x.mean(dim=(2, 3, 4)), outputs)
            x = x * torch.sigmoid(gate)[:, :, None, None, None]
        return x

    def _s3d(self, x: Tensor) -> Tensor:
        if self.rgb:
            x = self._unit("Conv2d_1a_7x7", x, 64, (7, 7, 7), stride=(2, 2, 2))
        else:
            pairs = [
                x[:, :, dt::2, dy::2, dx::2] for dt in (0, 1) for dy in (0, 1) for dx in (0, 1)
            ]
            x = self._unit("Conv2d_1a_7x7", torch.cat(pairs, dim=1), 64, (2, 4, 4))
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self._unit("Conv2d_2b_1x1", x, 64)
        x = self._unit("Conv2d_2c_3x3", x, 192, (3, 3, 3), separable=True, gated=True)
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        for block, channels in MIXED.items():
            x = self._mixed(f"Mixed_{block}", x, channels)
            if block == "3c":
                x = max_pool(x, (3, 3, 3), (2, 2, 2))
            elif block == "4f":
                x = max_pool(x, (2, 2, 2), (2, 2, 2))
        return x.mean(dim=(2, 3, 4))

    def _mixed(self, name: str, x: Tensor, channels: tuple) -> Tensor:
        c0, c1a, c1b, c2a, c2b, c3 = channels
        wide = {"kernel": (3, 3, 3), "separable": True, "gated": True}
        b1 = self._unit(f"{name}/Branch_1_Conv2d_0a_1x1", x, c1a)
        b2 = self._unit(f"{name}/Branch_2_Conv2d_0a_1x1", x, c2a)
        b3 = max_pool(x, (3, 3, 3), (1, 1, 1))
        parts = [
            self._unit(f"{name}/Branch_0_Conv2d_0a_1x1", x, c0, gated=True),
            self._unit(f"{name}/Branch_1_Conv2d_0b_3x3", b1, c1b, **wide),
            self._unit(f"{name}/Branch_2_Conv2d_0b_3x3", b2, c2b, **wide),
            self._unit(f"{name}/Branch_3_Conv2d_0b_1x1", b3, c3, gated=True),
        ]
        return torch.cat(parts, dim=1)

    # ResNet50 v2, with TSM's shift where `frames` says how many belong together.

    def _tsm(self, x: Tensor) -> Tensor:
        b, _, t, _, _ = x.shape
        images = x.transpose(1, 2).flatten(0, 1)
        base, group = f"{ROOT}/visual_module/~/TSMResNetV2", "tsm_resnet_unit_{}"
        x = self._resnet(images, base, "tsm_resnet_stem", group, "", self.width, frames=t)
        return x.mean(dim=(2, 3)).reshape(b, t, -1).mean(dim=1)

    def _resnet(
        self, x: Tensor, base: str, stem: str, group: str, inner: str, width: float, frames: int = 0
    ) -> Tensor:
        x = self._conv(f"{base}/{stem}", x, int(64 * width), (7, 7), (2, 2))
        x = max_pool(x, (3, 3), (2, 2))
        for g, count in enumerate((3, 4, 6, 3)):
            outputs = int(256 * 2**g * width)
            for n in range(count):
                module = f"{base}/{group.format(g)}/block_{n}"
                step = (2, 2) if n == 0 and g > 0 else (1, 1)
                p = F.relu(self._norm(f"{module}/{BN}", x))
                if n == 0:
                    x = self._conv(f"{module}/{inner}shortcut_conv", p, outputs, (1, 1), step)
                r = shifted(p, frames) if frames else p
                r = self._conv(f"{module}/{inner}conv_0", r, outputs // 4, (1, 1), (1, 1))
                r = F.relu(self._norm(f"{module}/{BN}_1", r))
                r = self._conv(f"{module}/{inner}conv_1", r, outputs // 4, (3, 3), step)
                r = F.relu(self._norm(f"{module}/{BN}_2", r))
                x = x + self._conv(f"{module}/{inner}conv_2", r, outputs, (1, 1), (1, 1))
        return F.relu(self._norm(f"{base}/{BN}", x))


def shifted(images: Tensor, frames: int) -> Tensor:
    """The published shift: what looks ahead takes the last eighth and becomes the first."""
    x = images.reshape(-1, frames, *images.shape[1:])
    n, c, out = x.shape[2] // 8, x.shape[2], torch.zeros_like(x)
    out[:, :-1, :n] = x[:, 1:, c - n :]
    out[:, :, n : c - n] = x[:, :, n : c - n]
    out[:, 1:, c - n :] = x[:, :-1, :n]
    return out.reshape(images.shape)
