"""The training loop."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .config import TrainConfig, restored
from .dataset import WorldBatches
from .losses import mil_nce_loss, nce_loss
from .models.heads import shared_space
from .models.mmv import Mmv
from .models.norm import use_sync_batch_norm
from .tokenizer import build_tokenizer, encode
from .world import captions
from .world.scene import scene_of


def learning_rate(cfg: TrainConfig, step: int, first: int = 0) -> float:
    """Linear warm-up from step `first` on, then half a period of a cosine; 0 before."""
    begun = step - first
    if begun < cfg.warmup_steps:
        return cfg.lr * max(0, begun + 1) / cfg.warmup_steps
    done = (begun - cfg.warmup_steps) / max(1, cfg.steps - first - cfg.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return cfg.lr * (cfg.final_lr_share + (1 - cfg.final_lr_share) * cosine)


def build_model(cfg: TrainConfig) -> Mmv:
    """A model with the initial weights of the configuration's seed."""
    torch.manual_seed(cfg.seed)
    model = Mmv(cfg.model)
    # Both forms compute the same; in eager PyTorch on a CPU the 3D one is faster.
    model.video_backbone.form = "3d" if cfg.model.backbone == "s3d" else "2d"
    if "text" in model.modalities:
        centre_texts(model)
    return use_sync_batch_norm(model, cfg.sync_bn)


@torch.no_grad()
def centre_texts(model: Mmv, count: int = 512) -> None:
    """Sets the text head's bias so that descriptions have mean 0. What all texts share, a maximum
    of positive numbers, would otherwise make every cosine between them almost 1."""
    tokenizer = build_tokenizer(captions.vocabulary())
    scenes = [scene_of(0, i) for i in range(count)]
    ids = [encode(tokenizer, captions.evaluation_caption(s), model.cfg.max_words) for s in scenes]
    for space, vectors in model.embed_text(torch.from_numpy(np.stack(ids))).items():
        model.heads.text_head(space).bias -= vectors.mean(0)


def embedded(embed: Callable, rows: Tensor, cfg: TrainConfig) -> dict[str, Tensor]:
    """One tower in the configuration's precision; the losses behind it are f32 either way."""
    with torch.autocast("cpu", torch.bfloat16, enabled=cfg.precision == "bf16"):
        out = embed(rows)
    return {k: v.float() if v.dtype == torch.bfloat16 else v for k, v in out.items()}


def losses_of(model: Mmv, batch: dict[str, Tensor], cfg: TrainConfig) -> dict[str, Tensor]:
    """The weighted sum and its parts, in whichever spaces the head graph pairs the modalities."""
    graph = cfg.model.spaces
    video = embedded(model.embed_video, batch["frames"], cfg)
    total = torch.zeros((), dtype=next(iter(video.values())).dtype)
    losses = {}
    if space := shared_space(graph, "video", "text"):
        ids = batch["token_ids"]
        text = embedded(model.embed_text, ids.flatten(0, 1), cfg)[space]
        text = text.unflatten(0, ids.shape[:2])
        mask = batch["text_mask"]
        losses["video_text"] = mil_nce_loss(
            video[space], text, mask, cfg.temperature, cfg.loss_form
        )
        total = total + cfg.weight_video_text * losses["video_text"]
    space = shared_space(graph, "video", "audio")
    if space and "logmel" in batch:
        audio = embedded(model.embed_audio_logmel, batch["logmel"], cfg)
        losses["video_audio"] = nce_loss(video[space], audio[space], cfg.temperature, cfg.loss_form)
        total = total + cfg.weight_video_audio * losses["video_audio"]
    if not losses:
        raise ValueError(f"nothing to learn with {graph} spaces; is audio_from_step 0?")
    return {"loss": total, **losses}


TEXT = ("text_backbone.", "heads.text_coarse.", "heads.heads.text__")
AUDIO = ("audio_backbone.", "heads.audio_fine.", "heads.heads.audio__")


def parameter_groups(model: Mmv, cfg: TrainConfig) -> list[dict]:
    """Adam's groups: `first` is the step at which a group begins to learn, `share` scales its
    learning rate."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    text = [p for name, p in trained if name.startswith(TEXT)]
    audio = [p for name, p in trained if name.startswith(AUDIO)]
    rest = [p for name, p in trained if not name.startswith(TEXT + AUDIO)]
    groups = [
        {"params": rest, "first": 0, "share": 1.0},
        {"params": text, "first": cfg.text_from_step, "share": cfg.text_lr_share},
        {"params": audio, "first": cfg.audio_from_step, "share": 1.0},
    ]
    return [group for group in groups if group["params"]]


def save_checkpoint(
    path: Path,
    cfg: TrainConfig,
    model: Mmv,
    optimizer: torch.optim.Optimizer,
    step: int,
    before: dict | None = None,
) -> None:
    """`before`: configuration and step of the run that gave the initial weights."""
    state = {
        "config": cfg.to_dict(),
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "before": before,
    }
    # A killed run leaves the old checkpoint or the new one, never half of one.
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load_checkpoint(path: Path) -> tuple[TrainConfig, Mmv, dict[str, Any]]:
    """(configuration, model in eval mode, everything that was saved)."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    cfg = restored(state["config"])
    model = build_model(cfg)
    model.load_state_dict(state["model"])
    return cfg, model.eval(), state


def train(
    cfg: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    initial: Path | None = None,
) -> Mmv:
    """Trains and leaves `checkpoint.pt` and `log.jsonl` in `out`; returns the model in eval mode.

    A resumed run makes the same steps as one that was never interrupted. `initial` is a checkpoint
    whose weights to start from, instead of the seed's.
    """
    torch.set_num_threads(cfg.threads)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    model, start, before = build_model(cfg).train(), 0, None
    if initial is not None:
        first, _, state = load_checkpoint(initial)
        model.load_state_dict(state["model"])
        before = {"config": first.to_dict(), "step": state["step"], "before": state.get("before")}
    optimizer = torch.optim.Adam(parameter_groups(model, cfg), lr=cfg.lr)
    if resume and checkpoint.exists():
        _, _, state = load_checkpoint(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, before = state["step"], state.get("before")
    log = Log(cfg, out, start, tensorboard)
    data = WorldBatches(cfg)
    steps = range(start, cfg.steps)
    loader = DataLoader(data, batch_size=None, sampler=steps, num_workers=cfg.workers)

    for step, batch in zip(steps, loader, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(cfg, step, group["first"])
        losses = losses_of(model, batch, cfg)
        if not torch.isfinite(losses["loss"]):
            raise FloatingPointError(f"step {step}: the loss is {losses['loss'].item()}")
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        learning = [p for g in optimizer.param_groups if g["lr"] > 0 for p in g["params"]]
        norm = torch.nn.utils.clip_grad_norm_(learning, cfg.clip_norm, error_if_nonfinite=True)
        optimizer.step()
        log.step(step, {**losses, "gradient_norm": norm}, learning_rate(cfg, step))
        if (step + 1) % cfg.checkpoint_every == 0 or step + 1 == cfg.steps:
            save_checkpoint(checkpoint, cfg, model, optimizer, step + 1, before)

    log.close()
    return model.eval()


class Log:
    """Means over `log_every` steps to the terminal, `log.jsonl` and, if asked, TensorBoard."""

    def __init__(self, cfg: TrainConfig, out: Path, start: int, tensorboard: bool) -> None:
        self.cfg, self.sums, self.count = cfg, {}, 0
        self.file = (out / "log.jsonl").open("a" if start else "w")
        self.writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(out))
        self.started = self.last = time.monotonic()
        self.cpu = time.process_time()
        self.first = start

    def step(self, step: int, values: dict[str, Tensor], lr: float) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.count += 1
        if self.count < self.cfg.log_every and step + 1 < self.cfg.steps:
            return
        now, cpu = time.monotonic(), time.process_time()
        row = {"step": step + 1, "lr": lr} | {k: v / self.count for k, v in self.sums.items()}
        row["clips_per_sec"] = self.count * self.cfg.batch_size / (now - self.last)
        row["cpu_secs_per_step"] = (cpu - self.cpu) / self.count
        row["elapsed_secs"] = now - self.started
        eta = (now - self.started) / (step + 1 - self.first) * (self.cfg.steps - step - 1)
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        parts = ", ".join(f"{k} {row[k]:.3f}" for k in ("video_text", "video_audio") if k in row)
        print(
            f"step {step + 1}/{self.cfg.steps}  loss {row['loss']:.3f} ({parts})"
            f"  |g| {row['gradient_norm']:.2f}  lr {lr:.2e}  {row['clips_per_sec']:.1f} clips/s"
            f"  cpu {row['cpu_secs_per_step']:.2f} s/step  eta {eta / 60:.1f} min",
            flush=True,
        )
        if self.writer is not None:
            for name, value in row.items():
                self.writer.add_scalar(name, value, step + 1)
        self.sums, self.count, self.last, self.cpu = {}, 0, now, cpu

    def close(self) -> None:
        self.file.close()
        if self.writer is not None:
            self.writer.close()
