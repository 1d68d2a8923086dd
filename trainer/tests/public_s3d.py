"""The public S3D of MIL-NCE restated from its description, with its own paddings and names: the
other side of the import's test. Plain functions over a dict of tensors."""

import torch
from torch import Tensor
from torch.nn import functional as F

WIDTHS = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


def random_weights(words: int, seed: int = 0) -> dict[str, Tensor]:
    g, w = torch.Generator().manual_seed(seed), {}

    def conv(name: str, n: int, inputs: int, outputs: int, kernel: tuple) -> None:
        fan = inputs * kernel[0] * kernel[1] * kernel[2]
        w[f"{name}.conv{n}.weight"] = torch.randn(outputs, inputs, *kernel, generator=g)
        w[f"{name}.conv{n}.weight"] *= (2 / fan) ** 0.5
        bn = f"{name}.bn{n}"
        w[f"{bn}.weight"] = 0.75 + 0.5 * torch.rand(outputs, generator=g)
        w[f"{bn}.bias"] = 0.2 * torch.randn(outputs, generator=g)
        w[f"{bn}.running_mean"] = 0.2 * torch.randn(outputs, generator=g)
        w[f"{bn}.running_var"] = 0.7 + 0.6 * torch.rand(outputs, generator=g)
        w[f"{bn}.num_batches_tracked"] = torch.tensor(7)

    def linear(name: str, inputs: int, outputs: int) -> None:
        w[f"{name}.weight"] = torch.randn(outputs, inputs, generator=g) * inputs**-0.5
        w[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=g)

    def separable(name: str, inputs: int, outputs: int) -> None:
        conv(name, 1, inputs, outputs, (1, 3, 3))
        conv(name, 2, outputs, outputs, (3, 1, 1))

    conv("conv1", 1, 24, 64, (2, 4, 4))
    conv("conv_2b", 1, 64, 64, (1, 1, 1))
    separable("conv_2c", 64, 192)
    linear("gating.fc", 192, 192)
    for block, (inputs, c0, c1a, c1b, c2a, c2b, c3) in WIDTHS.items():
        at = f"mixed_{block}"
        conv(f"{at}.conv_b0", 1, inputs, c0, (1, 1, 1))
        conv(f"{at}.conv_b1_a", 1, inputs, c1a, (1, 1, 1))
        separable(f"{at}.conv_b1_b", c1a, c1b)
        conv(f"{at}.conv_b2_a", 1, inputs, c2a, (1, 1, 1))
        separable(f"{at}.conv_b2_b", c2a, c2b)
        conv(f"{at}.conv_b3_b", 1, inputs, c3, (1, 1, 1))
        for gate, channels in (("b0", c0), ("b1", c1b), ("b2", c2b), ("b3", c3)):
            linear(f"{at}.gating_{gate}.fc", channels, channels)
    linear("fc", 1024, 512)
    w["text_module.word_embd.weight"] = torch.randn(words, 300, generator=g) * 0.3
    linear("text_module.fc1", 300, 2048)
    linear("text_module.fc2", 2048, 512)
    return w


def video(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """[B, 3, T, H, W] in [0, 1] -> [B, 512]."""

    def conv(x: Tensor, name: str, n: int, padding) -> Tensor:
        x = F.conv3d(x, w[f"{name}.conv{n}.weight"], padding=padding)
        stats = [w[f"{name}.bn{n}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *stats))

    def separable(x: Tensor, name: str) -> Tensor:
        return conv(conv(x, name, 1, (0, 1, 1)), name, 2, (1, 0, 0))

    def gate(x: Tensor, name: str) -> Tensor:
        mean = x.mean(dim=(2, 3, 4))
        s = torch.sigmoid(F.linear(mean, w[f"{name}.fc.weight"], w[f"{name}.fc.bias"]))
        return x * s[:, :, None, None, None]

    def pool(x: Tensor, kernel: tuple, stride: tuple) -> Tensor:
        pads = []
        for k, s in zip(reversed(kernel), reversed(stride), strict=True):
            pads += [(k - s) // 2, (k - s) - (k - s) // 2]
        return F.max_pool3d(F.pad(x, pads), kernel, stride, ceil_mode=True)

    def mixed(x: Tensor, at: str) -> Tensor:
        b0 = conv(x, f"{at}.conv_b0", 1, 0)
        b1 = separable(conv(x, f"{at}.conv_b1_a", 1, 0), f"{at}.conv_b1_b")
        b2 = separable(conv(x, f"{at}.conv_b2_a", 1, 0), f"{at}.conv_b2_b")
        b3 = conv(F.max_pool3d(x, 3, 1, padding=1), f"{at}.conv_b3_b", 1, 0)
        parts = (b0, b1, b2, b3)
        return torch.cat([gate(b, f"{at}.gating_b{i}") for i, b in enumerate(parts)], dim=1)

    b, c, t, h, width = x.shape
    x = x.reshape(b, c, t // 2, 2, h // 2, 2, width // 2, 2).permute(0, 3, 5, 7, 1, 2, 4, 6)
    x = x.reshape(b, 8 * c, t // 2, h // 2, width // 2)
    # Padded on both sides, and the first row of each axis dropped.
    x = conv(x, "conv1", 1, (1, 2, 2))[:, :, 1:, 1:, 1:]
    x = pool(x, (1, 3, 3), (1, 2, 2))
    x = gate(separable(conv(x, "conv_2b", 1, 0), "conv_2c"), "gating")
    x = pool(x, (1, 3, 3), (1, 2, 2))
    x = mixed(mixed(x, "mixed_3b"), "mixed_3c")
    x = pool(x, (3, 3, 3), (2, 2, 2))
    for block in ("4b", "4c", "4d", "4e", "4f"):
        x = mixed(x, f"mixed_{block}")
    x = pool(x, (2, 2, 2), (2, 2, 2))
    x = mixed(mixed(x, "mixed_5b"), "mixed_5c").mean(dim=(2, 3, 4))
    return F.linear(x, w["fc.weight"], w["fc.bias"])


def text(w: dict[str, Tensor], ids: Tensor) -> Tensor:
    """[N, 16] -> [N, 512]."""
    at = "text_module"
    x = F.embedding(ids, w[f"{at}.word_embd.weight"])
    x = F.relu(F.linear(x, w[f"{at}.fc1.weight"], w[f"{at}.fc1.bias"])).amax(dim=1)
    return F.linear(x, w[f"{at}.fc2.weight"], w[f"{at}.fc2.bias"])
