"""PCM to log-mel (MMV specification, section 5), as fixed convolutions so that it exports."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

FFT = 2048
HOP = 1024
MEL_BINS = 80
LOW_HZ, HIGH_HZ = 80.0, 7600.0


def mel_matrix(sample_rate_hz: int = 48_000) -> np.ndarray:
    """HTK triangles [FFT/2 + 1, 80] without area normalisation; the DC bin is left out."""
    mel = lambda hz: 1127.0 * np.log1p(hz / 700.0)  # noqa: E731
    bins = mel(np.linspace(0.0, sample_rate_hz / 2, FFT // 2 + 1)[1:])[:, None]
    edges = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), MEL_BINS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.concatenate([np.zeros((1, MEL_BINS)), triangles])


class LogMel(nn.Module):
    """PCM f32 [B, samples] in [-1, 1] at 48 kHz -> log-mel [B, ceil(samples / 1024), 80, 1].

    Frame 2048, hop 1024, periodic Hann, zeros after the end, magnitude. Only the bins that a
    mel triangle reaches are computed.
    """

    def __init__(self, log: str = "log1p10000") -> None:
        super().__init__()
        if log not in ("log1p10000", "eps1e-6"):
            raise ValueError(f"unknown log {log!r}")
        self.log = log
        mel = mel_matrix()
        used = np.flatnonzero(mel.any(axis=1))
        n = np.arange(FFT)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / FFT)
        phase = 2 * np.pi * np.outer(used, n) / FFT
        basis = np.concatenate([np.cos(phase) * window, -np.sin(phase) * window])
        # Fixed numbers, not parameters: they come from the code, so no checkpoint carries them.
        as_buffer = lambda a: torch.tensor(a, dtype=torch.float32)  # noqa: E731
        self.register_buffer("basis", as_buffer(basis)[:, None], persistent=False)
        self.register_buffer("mel", as_buffer(mel[used]), persistent=False)

    def magnitudes_to_mel(self, pcm: Tensor) -> Tensor:
        frames = -(-pcm.shape[1] // HOP)
        padded = F.pad(pcm, (0, (frames - 1) * HOP + FFT - pcm.shape[1]))
        spectrum = F.conv1d(padded[:, None], self.basis, stride=HOP)
        real, imaginary = spectrum.chunk(2, dim=1)
        magnitude = torch.sqrt(real * real + imaginary * imaginary)
        return magnitude.transpose(1, 2) @ self.mel

    def forward(self, pcm: Tensor) -> Tensor:
        mel = self.magnitudes_to_mel(pcm)
        mel = torch.log1p(10_000.0 * mel) if self.log == "log1p10000" else torch.log(mel + 1e-6)
        return mel[..., None]
