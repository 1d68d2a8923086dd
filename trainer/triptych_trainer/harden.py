"""Trains a sound network to recognise a sound at any level and in noise.

The network of a bundle learns to give a disturbed sound the vector of the sound itself, in every
space. Neither pictures nor texts are needed for that, and their vectors stay as they are: the sound
network is trained alone, below heads that pictures use too.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from .errors import LOWER_RATE, check_loss
from .models.audio_frontend import FFT, HOP, LogMel
from .models.mmv import Mmv
from .world.disturbed import at_level, with_noise
from .world.scene import scene_of
from .world.sound import synthesise

SOUND_SEED = 31
CLEAN_SHARE = 0.3
QUIETEST_DB, LOUDEST_DB = -45.0, 6.0
WORST_SNR_DB, BEST_SNR_DB = -3.0, 30.0
WHITE_SHARE = 0.5
"""The rest has a slope between white and brown."""


@dataclass(frozen=True)
class Hardening:
    """How it is learnt."""

    steps: int = 450
    batch_size: int = 32
    lr: float = 1e-3
    seed: int = SOUND_SEED
    log_every: int = 20


class Disturbed(Dataset):
    """Batch n as (PCM as it is, PCM disturbed), f32 [batch, samples]; from its number alone."""

    def __init__(self, how: Hardening, samples: int) -> None:
        self.how, self.samples = how, samples

    def __len__(self) -> int:
        return self.how.steps

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.how.seed, number])
        clean, heard = [], []
        for row in range(self.how.batch_size):
            scene = scene_of(self.how.seed, number * self.how.batch_size + row)
            pcm = synthesise(scene, rng.uniform(0.0, 16.0), self.samples)
            clean.append(pcm)
            heard.append(disturbed(pcm, rng))
        return torch.from_numpy(np.stack(clean)), torch.from_numpy(np.stack(heard))


def disturbed(pcm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Now and then as it is; else with noise, at another level, or both."""
    if rng.uniform() < CLEAN_SHARE:
        return pcm
    noisy, moved = rng.uniform() < 0.65, rng.uniform() < 0.65
    if noisy or not moved:
        slope = 0.0 if rng.uniform() < WHITE_SHARE else rng.uniform(0.0, 2.0)
        pcm = with_noise(pcm, rng.uniform(WORST_SNR_DB, BEST_SNR_DB), rng, slope)
    return at_level(pcm, rng.uniform(QUIETEST_DB, LOUDEST_DB) if moved else 0.0)


def quick_log_mel(front: LogMel, pcm: Tensor) -> Tensor:
    """What `front` gives, by way of a fast Fourier transform, which a graph does not have."""
    count = -(-pcm.shape[1] // HOP)
    padded = F.pad(pcm, (0, (count - 1) * HOP + FFT - pcm.shape[1]))
    window = torch.hann_window(FFT, periodic=True)
    magnitude = torch.fft.rfft(padded.unfold(1, FFT, HOP) * window).abs()
    used = front.basis.shape[0] // 2
    first = round(float(torch.fft.rfft(front.basis[0, 0]).abs().argmax()))
    mel = magnitude[:, :, first : first + used] @ front.mel
    mel = torch.log1p(10_000.0 * mel) if front.log == "log1p10000" else torch.log(mel + 1e-6)
    return mel[..., None]


def harden(
    model: Mmv,
    how: Hardening,
    workers: int = 1,
    say: Callable[[str], None] = print,
    teacher: Mmv | None = None,
) -> list[float]:
    """Trains the sound network of `model` in place; the mean 1 - cosine of every step. `teacher`
    says what the sounds themselves give; without one, what the model gives now."""
    teacher = (teacher or copy.deepcopy(model)).eval().requires_grad_(False)
    model.eval().requires_grad_(False)
    parameters = _sound_alone(model)
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer, losses = torch.optim.Adam(parameters, lr=how.lr), []
    data = Disturbed(how, model.cfg.samples)
    for step, (clean, heard) in enumerate(DataLoader(data, None, num_workers=workers)):
        for group in optimizer.param_groups:
            group["lr"] = how.lr * _share_of_rate(step, how.steps)
        with torch.no_grad():
            want = teacher.embed_audio_logmel(quick_log_mel(teacher.log_mel, clean))
            logmel = quick_log_mel(model.log_mel, heard)
        got = model.embed_audio_logmel(logmel)
        apart = [1 - F.cosine_similarity(got[space], want[space]).mean() for space in want]
        loss = torch.stack(apart).mean()
        check_loss(loss.item(), f"step {step}", LOWER_RATE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % how.log_every == 0:
            recent = sum(losses[-how.log_every :]) / how.log_every
            say(f"step {step + 1}/{how.steps}  1 - cosine {recent:.4f}")
    model.requires_grad_(False)
    return losses


def _share_of_rate(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _sound_alone(model: Mmv) -> list[torch.nn.Parameter]:
    """The backbone and the heads that nothing but sound goes through."""
    own = [m for n, m in model.heads.named_children() if n.startswith("audio")]
    if hasattr(model.heads, "heads"):
        own += [m for n, m in model.heads.heads.items() if n.startswith("audio__")]
    return [*model.audio_backbone.parameters(), *(p for head in own for p in head.parameters())]


def record(how: Hardening) -> dict:
    """What the manifest says of it."""
    return {
        "data": "sounds of the procedural world at other levels, and in noise, white to brown",
        "gain_db": [QUIETEST_DB, LOUDEST_DB],
        "snr_db": [WORST_SNR_DB, BEST_SNR_DB],
        **{key: value for key, value in asdict(how).items() if key != "log_every"},
    }
