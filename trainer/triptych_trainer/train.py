"""The training loop."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from .config import TrainConfig, from_dict
from .data.batches import RankShare, RealBatches
from .data.config import Part
from .data.words import load_word_vectors
from .distributed import mean_over_ranks, rank, ranks, world_size
from .errors import LOWER_RATE, TrainerError, check_loss
from .losses import mil_nce_loss, nce_loss
from .models.heads import shared_space
from .models.mmv import Mmv
from .models.norm import use_sync_batch_norm
from .reading import check_finite, fill, of_file, read_torch
from .tokenizer import build_tokenizer, encode
from .world import captions
from .world.dataset import WorldBatches
from .world.scene import scene_of

DIVERGED = (
    f"{LOWER_RATE} or lengthen the warm-up (--warmup-steps); the last checkpoint is from before "
    "that, and --resume continues from it"
)


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
    if "text" in model.modalities and not cfg.data.sources:
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


def parts_of(cfg: TrainConfig, size: int) -> list[Part]:
    """Which rows of a batch belong to which dataset; the small world is one."""
    weights = (cfg.weight_video_audio, cfg.weight_video_text)
    if not cfg.data.sources:
        return [Part("", slice(0, size), *weights)]
    parts, first = [], 0
    for source, count in zip(cfg.data.sources, cfg.data.counts(size), strict=True):
        own = (source.weight_video_audio, source.weight_video_text)
        chosen = [w if o is None else o for o, w in zip(own, weights, strict=True)]
        name = f"{source.name}." if len(cfg.data.sources) > 1 else ""
        parts.append(Part(name, slice(first, first + count), *chosen))
        first += count
    return parts


def losses_of(model: Mmv, batch: dict[str, Tensor], cfg: TrainConfig) -> dict[str, Tensor]:
    """The weighted sum and its parts, in whichever spaces the head graph pairs the modalities.
    Each dataset has its own losses: its clips are compared with each other alone."""
    graph, ids = cfg.model.spaces, batch["token_ids"]
    text_space = shared_space(graph, "video", "text")
    audio_space = shared_space(graph, "video", "audio") if "logmel" in batch else None
    text = audio = None
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=in_bf16(cfg, ids.device)):
        video = full(model.embed_video(batch["frames"]))
        if text_space:
            text = full(model.embed_text(ids.flatten(0, 1)))[text_space].unflatten(0, ids.shape[:2])
        if audio_space:
            audio = full(model.embed_audio_logmel(batch["logmel"]))[audio_space]
    # The losses are outside: over a temperature of 0.07 they need more digits than bf16 has.
    masks, how = (batch["text_mask"], batch.get("audio_mask")), (cfg.temperature, cfg.loss_form)
    losses, terms = {}, []
    for part in parts_of(cfg, len(ids)):
        rows = part.rows
        text_mask, audio_mask = (None if mask is None else mask[rows] for mask in masks)
        if text_space and part.weight_video_text:
            loss = mil_nce_loss(video[text_space][rows], text[rows], text_mask, *how)
            losses[f"{part.name}video_text"] = loss
            terms.append(part.weight_video_text * loss)
        if audio_space and part.weight_video_audio:
            loss = nce_loss(video[audio_space][rows], audio[rows], *how, audio_mask)
            losses[f"{part.name}video_audio"] = loss
            terms.append(part.weight_video_audio * loss)
    if not terms:
        raise ValueError(f"nothing to learn with {graph} spaces; is audio_from_step 0?")
    return {"loss": torch.stack(terms).sum(), **losses}


def in_bf16(cfg: TrainConfig, device: torch.device) -> bool:
    """On CPUs PyTorch 2.15's bf16 convolutions now and then leave a gradient that is not finite:
    the weights of a (3, 1, 1) kernel, from the same numbers that gave a good one before."""
    if cfg.precision == "bf16" and device.type != "cuda":
        raise ValueError("precision bf16 needs CUDA: on a CPU its gradients are unreliable")
    return cfg.precision != "f32" and device.type == "cuda"


def full(vectors: dict[str, Tensor]) -> dict[str, Tensor]:
    """At least f32."""
    return {k: v if v.dtype == torch.float64 else v.float() for k, v in vectors.items()}


class Objective(nn.Module):
    """The losses as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: Mmv, cfg: TrainConfig, device: torch.device) -> None:
        super().__init__()
        self.model, self.cfg, self.device = model, cfg, device

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        batch = {name: x.to(self.device, non_blocking=True) for name, x in batch.items()}
        return losses_of(self.model, batch, self.cfg)


def over_ranks(objective: Objective) -> nn.Module:
    """Gradients become the mean over the ranks; a tower that a step leaves out has none."""
    if world_size() == 1:
        return objective
    cfg = objective.cfg
    parts = parts_of(cfg, cfg.batch_size)
    all_learn = any(p.weight_video_text for p in parts) and any(p.weight_video_audio for p in parts)
    devices = [objective.device] if objective.device.type == "cuda" else None
    return DistributedDataParallel(
        objective,
        device_ids=devices,
        # The BatchNorms have joined their statistics already.
        broadcast_buffers=False,
        find_unused_parameters=not all_learn or cfg.audio_from_step > 0,
    )


def batches_of(cfg: TrainConfig) -> Dataset:
    """Item n: this rank's part of training batch n."""
    if cfg.data.sources:
        return RealBatches(cfg)
    return WorldBatches(cfg) if world_size() == 1 else RankShare(WorldBatches(cfg))


def parameter_groups(model: Mmv, cfg: TrainConfig) -> list[dict]:
    """Adam's groups: `first` is the step at which a group begins to learn, `share` scales its
    learning rate. Every parameter that learns belongs to one modality."""
    rules = {"video": (0, 1.0)}
    rules["text"] = (cfg.text_from_step, cfg.text_lr_share)
    rules["audio"] = (cfg.audio_from_step, 1.0)
    owner: dict[int, str] = {}
    for modality in model.modalities:
        for module in model.modules_of(modality):
            for parameter in module.parameters():
                if owner.setdefault(id(parameter), modality) != modality:
                    first = owner[id(parameter)]
                    raise ValueError(f"a parameter of {first} is one of {modality}, too")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if lost := [name for name, p in trained.items() if id(p) not in owner]:
        raise ValueError(f"{', '.join(lost)}: of no modality; add their module to `modules_of`")
    groups = [
        {
            "params": [p for p in trained.values() if owner[id(p)] == modality],
            "first": first,
            "share": share,
        }
        for modality, (first, share) in rules.items()
    ]
    return [group for group in groups if group["params"]]


def optimizer_of(model: Mmv, cfg: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """Adam; on CUDA in one kernel, not a dozen for each list of tensors."""
    return torch.optim.Adam(
        parameter_groups(model, cfg), lr=cfg.lr, fused=True if device.type == "cuda" else None
    )


def step_once(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    cfg: TrainConfig,
    step: int,
) -> dict[str, Tensor]:
    """Learns from one batch; the losses and the gradient's norm."""
    for group in optimizer.param_groups:
        group["lr"] = group["share"] * learning_rate(cfg, step, group["first"])
    skipped = batch.pop("skipped", torch.zeros(()))
    losses = objective(batch)
    values = mean_over_ranks({**losses, "skipped": skipped * world_size()})
    check_loss(values["loss"].item(), f"step {step}", DIVERGED)
    optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()
    learning = [p for g in optimizer.param_groups if g["lr"] > 0 for p in g["params"]]
    norm = nn.utils.clip_grad_norm_(learning, cfg.clip_norm)
    if not torch.isfinite(norm):
        raise FloatingPointError(f"step {step}: the gradient's norm is {norm.item()}. {DIVERGED}")
    optimizer.step()
    return {**values, "gradient_norm": norm}


def save_checkpoint(
    path: Path,
    cfg: TrainConfig,
    model: Mmv,
    optimizer: torch.optim.Optimizer,
    step: int,
    words: list[str] | None = None,
    before: dict | None = None,
) -> None:
    """`words`: the word list of a model of real data, which its export needs. `before`:
    configuration and step of the run that gave the initial weights."""
    if rank() > 0:
        return
    state = {
        "config": cfg.to_dict(),
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "words": words or [],
        "before": before,
    }
    # A killed run leaves the old checkpoint or the new one, never half of one.
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load_checkpoint(path: Path) -> tuple[TrainConfig, Mmv, dict[str, Any]]:
    """(configuration, model in eval mode, everything that was saved)."""
    what = "the checkpoint.pt of a run of `train`"
    state = read_torch(path, what)
    if not isinstance(state, dict) or not {"config", "step", "model"} <= state.keys():
        raise TrainerError(f"{path} is not {what}: it has no configuration, step and weights")
    with of_file(path, f"{what} of this version"):
        cfg = from_dict(TrainConfig, state["config"])
        model = build_model(cfg)
    fill(model, state["model"], path, "its own configuration")
    check_finite(model, path)
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

    A resumed run makes the same steps as one that was never interrupted. `initial` is a
    checkpoint whose weights to start from, instead of the seed's.
    """
    torch.set_num_threads(cfg.threads)
    with ranks(cfg.device) as device:
        return run(cfg, out, device, resume=resume, tensorboard=tensorboard, initial=initial)


def run(
    cfg: TrainConfig,
    out: Path,
    device: torch.device,
    *,
    resume: bool,
    tensorboard: bool,
    initial: Path | None,
) -> Mmv:
    """The loop, as one of the ranks."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    model, start, before = build_model(cfg).train().to(device), 0, None
    if initial is not None:
        first, _, state = load_checkpoint(initial)
        fill(model, state["model"], initial, "the network of this configuration")
        before = {"config": first.to_dict(), "step": state["step"], "before": state.get("before")}
    optimizer = optimizer_of(model, cfg, device)
    if resume and checkpoint.exists():
        _, _, state = load_checkpoint(checkpoint)
        fill(model, state["model"], checkpoint, "the network of this configuration")
        fill(optimizer, state.get("optimizer"), checkpoint, "this configuration's optimizer")
        start, before = state["step"], state.get("before")
    elif initial is None:
        load_word_vectors(model, cfg)
    log = Log(cfg, out, start, tensorboard)
    data, objective = batches_of(cfg), over_ranks(Objective(model, cfg, device))
    words = data.words.words if getattr(data, "words", None) else []
    steps = range(start, cfg.steps)
    pinned = {"num_workers": cfg.workers, "pin_memory": device.type == "cuda"}
    loader = DataLoader(data, batch_size=None, sampler=steps, **pinned)

    for step, batch in zip(steps, loader, strict=True):
        values = step_once(objective, optimizer, batch, cfg, step)
        log.step(step, values, learning_rate(cfg, step))
        if (step + 1) % cfg.checkpoint_every == 0 or step + 1 == cfg.steps:
            save_checkpoint(checkpoint, cfg, model, optimizer, step + 1, words, before)

    log.close()
    return model.eval()


class Log:
    """Means over `log_every` steps to the terminal, `log.jsonl` and, if asked, TensorBoard; the
    first rank's. `skipped` is the number of broken files since the start."""

    def __init__(self, cfg: TrainConfig, out: Path, start: int, tensorboard: bool) -> None:
        self.cfg, self.sums, self.count, self.skipped = cfg, {}, 0, 0
        self.silent = rank() > 0
        self.file = self.writer = None
        if self.silent:
            return
        self.file = (out / "log.jsonl").open("a" if start else "w")
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(out))
        self.started = self.last = time.monotonic()
        self.cpu = time.process_time()
        self.first = start

    def step(self, step: int, values: dict[str, Tensor], lr: float) -> None:
        if self.silent:
            return
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.count += 1
        if self.count < self.cfg.log_every and step + 1 < self.cfg.steps:
            return
        now, cpu = time.monotonic(), time.process_time()
        row = {"step": step + 1, "lr": lr} | {k: v / self.count for k, v in self.sums.items()}
        self.skipped += round(self.sums.get("skipped", 0.0))
        row["skipped"] = self.skipped
        row["clips_per_sec"] = self.count * self.cfg.batch_size / (now - self.last)
        row["cpu_secs_per_step"] = (cpu - self.cpu) / self.count
        row["elapsed_secs"] = now - self.started
        eta = (now - self.started) / (step + 1 - self.first) * (self.cfg.steps - step - 1)
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        named = [k for k in row if k.endswith(("video_text", "video_audio"))]
        parts = ", ".join(f"{k} {row[k]:.3f}" for k in named)
        print(
            f"step {step + 1}/{self.cfg.steps}  loss {row['loss']:.3f} ({parts})"
            f"  |g| {row['gradient_norm']:.2f}  lr {lr:.2e}  {row['clips_per_sec']:.1f} clips/s"
            f"  cpu {row['cpu_secs_per_step']:.2f} s/step  eta {eta / 60:.1f} min"
            + (f"  skipped {self.skipped}" if self.skipped else ""),
            flush=True,
        )
        if self.writer is not None:
            for name, value in row.items():
                self.writer.add_scalar(name, value, step + 1)
        self.sums, self.count, self.last, self.cpu = {}, 0, now, cpu

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        if self.writer is not None:
            self.writer.close()
