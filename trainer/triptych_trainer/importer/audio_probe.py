"""Which logarithm imported audio weights expect (MMV specification, section 5).

The public code has no front end, and the sources disagree. The checkpoint remembers the mean and
variance its first BatchNorm saw in training; real sound under the right logarithm gives similar
ones, under the wrong one not.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..models.audio_frontend import LogMel
from ..models.resnet import AudioResNet50

LOGS = ("log1p10000", "eps1e-6")


@dataclass
class Probe:
    """`divergence` per logarithm: the mean over channels of the symmetric Kullback-Leibler
    divergence of the two normal distributions; smaller is closer."""

    chosen: str
    divergence: dict[str, float]
    clips: int
    sound: str

    def to_dict(self) -> dict:
        rounded = {log: float(f"{d:.4g}") for log, d in self.divergence.items()}
        return {
            "chosen": self.chosen,
            "divergence": rounded,
            "clips": self.clips,
            "sound": self.sound,
        }


@torch.no_grad()
def probe(backbone: AudioResNet50, pcm: torch.Tensor, sound: str) -> Probe:
    """`pcm` [N, samples] at 48 kHz in [-1, 1]."""
    norm = backbone.groups[0][0].bn_0
    divergence = {}
    for log in LOGS:
        maps = backbone.pooled_stem(LogMel(log)(pcm).permute(0, 3, 1, 2)).double()
        var, mean = torch.var_mean(maps, dim=(0, 2, 3), correction=0)
        want_mean, want_var = norm.running_mean.double(), norm.running_var.double()
        # A channel of zeros has no variance: the epsilon the network itself adds.
        var, want_var = var + 1e-5, want_var + 1e-5
        gap = (mean - want_mean) ** 2
        jeffreys = (var + gap) / want_var + (want_var + gap) / var - 2.0
        # The median: a few channels may be dead, and one dead channel would outweigh all others.
        divergence[log] = float(jeffreys.median() / 2.0)
    chosen = min(divergence, key=divergence.get)
    return Probe(chosen, divergence, len(pcm), sound)


def generated_sound(clips: int = 8, samples: int = 153_600, seed: int = 0) -> torch.Tensor:
    """Stand-in where no recording is given: noise with a 1/f spectrum, swelling and fading at the
    rate of speech, at levels between -45 and -15 dBFS."""
    generator = np.random.default_rng(seed)
    frequency = np.fft.rfftfreq(samples, 1 / 48_000)
    slope = 1.0 / np.maximum(frequency, 40.0) ** 0.5
    out = []
    for level_db in np.linspace(-45.0, -15.0, clips):
        wave = np.fft.irfft(np.fft.rfft(generator.standard_normal(samples)) * slope, samples)
        rate = generator.uniform(2.0, 6.0)
        swell = 0.5 + 0.5 * np.sin(2 * np.pi * rate * np.arange(samples) / 48_000)
        wave = wave * swell**2
        wave *= 10 ** (level_db / 20) / np.sqrt(np.mean(wave**2))
        out.append(np.clip(wave, -1.0, 1.0))
    return torch.tensor(np.array(out), dtype=torch.float32)
