"""What training steps cost apart from their data: clips per second, memory, and the share of the
device's own bf16 rate."""

import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .config import TrainConfig
from .distributed import ranks
from .train import Objective, build_model, in_bf16, optimizer_of, step_once
from .world.dataset import CANDIDATES

WARM_UP_STEPS = 3
MATRIX = 8192
MATRIX_ROUNDS = 20
GIB = 1 << 30


@dataclass(frozen=True)
class TrainingCost:
    device: str
    precision: str
    batch_size: int
    secs_per_step: float
    clips_per_sec: float
    tflop_per_clip: float
    """Of convolutions and matrix products, forward and backward."""
    tflop_per_sec: float
    peak_memory_gib: float | None = None
    """None on a CPU, as what follows."""
    bf16_tflop_per_sec: float | None = None
    """Of the product of two bf16 matrices of 8192 x 8192."""
    share_of_bf16: float | None = None

    def to_dict(self) -> dict:
        return {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def training_cost(cfg: TrainConfig, steps: int) -> TrainingCost:
    """Makes `steps` steps of all towers on one batch of noise that lies on the device."""
    torch.set_num_threads(cfg.threads)
    with ranks(cfg.device) as device:
        model = build_model(cfg).train().to(device)
        objective = Objective(model, cfg, device)
        optimizer = optimizer_of(model, cfg, device)
        batch = noise(model, cfg, device)
        flop = flop_of(objective, batch)
        taken = timed(objective, optimizer, batch, cfg, steps, device)
        clips_per_sec = steps * cfg.batch_size / taken
        cost = {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "precision": "bf16" if in_bf16(cfg, device) else "f32",
            "batch_size": cfg.batch_size,
            "secs_per_step": taken / steps,
            "clips_per_sec": clips_per_sec,
            "tflop_per_clip": flop / cfg.batch_size / 1e12,
            "tflop_per_sec": clips_per_sec * flop / cfg.batch_size / 1e12,
        }
        if device.type == "cuda":
            cost["peak_memory_gib"] = torch.cuda.max_memory_allocated() / GIB
            cost["bf16_tflop_per_sec"] = rate = bf16_rate(device) / 1e12
            cost["share_of_bf16"] = cost["tflop_per_sec"] / rate
        return TrainingCost(**cost)


def noise(model: nn.Module, cfg: TrainConfig, device: torch.device) -> dict[str, Tensor]:
    """A batch as the loaders make them."""
    size, own = cfg.batch_size, cfg.model
    chance = torch.Generator().manual_seed(cfg.seed)
    frames = (size, own.frames, own.crop, own.crop, 3)
    ids = torch.randint(2, own.vocab_size, (size, CANDIDATES, own.max_words), generator=chance)
    batch = {
        "frames": torch.randint(0, 256, frames, dtype=torch.uint8, generator=chance),
        "token_ids": ids,
        "text_mask": torch.ones(size),
    }
    if "audio" in model.modalities:
        pcm = torch.rand((1, own.samples), generator=chance) - 0.5
        mel = model.log_mel.cpu()(pcm)
        batch["logmel"] = mel.repeat(size, *[1] * (mel.dim() - 1))
        model.log_mel.to(device)
    return {name: x.to(device) for name, x in batch.items()}


def flop_of(objective: Objective, batch: dict[str, Tensor]) -> int:
    """Of one forward and backward pass."""
    counter = FlopCounterMode(display=False)
    with counter:
        objective(batch)["loss"].backward()
    return counter.get_total_flops()


def timed(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    cfg: TrainConfig,
    steps: int,
    device: torch.device,
) -> float:
    """Seconds that `steps` steps take, some more having gone before."""
    # All towers learn; the presets start with some of them.
    first = max(cfg.audio_from_step, cfg.text_from_step) + 1
    started = 0.0
    for n in range(WARM_UP_STEPS + steps):
        if n == WARM_UP_STEPS:
            _wait(device)
            started = time.perf_counter()
        step_once(objective, optimizer, dict(batch), cfg, min(first + n, cfg.steps - 1))
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bf16_rate(device: torch.device) -> float:
    """FLOP per second of a large matrix product, the device's maximum."""
    a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    _wait(device)
    started = time.perf_counter()
    for _ in range(MATRIX_ROUNDS):
        a @ b
    _wait(device)
    return MATRIX_ROUNDS * 2 * MATRIX**3 / (time.perf_counter() - started)
