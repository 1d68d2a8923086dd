"""Fine-tuning the whole video network on UCF101 or HMDB51."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ..data.augment import augment
from ..data.config import Augment
from ..errors import LOWER_RATE, TrainerError, check_loss
from ..media import MediaError
from ..models.mmv import Mmv
from .actions import own_rule
from .classify import top
from .report import Report
from .splits import Labelled
from .towers import TorchTowers
from .windows import Media, VideoRule, ahead, frames_of, spread_windows

ATTEMPTS = 50


@dataclass(frozen=True)
class FinetuneRecipe:
    """SGD with momentum and half a cosine. The paper's own settings are not published in what this
    project read; these are ours."""

    epochs: int = 40
    batch_size: int = 32
    lr: float = 0.02
    head_lr_share: float = 10.0
    """The new layer learns this much faster than the trained network."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    dropout: float = 0.5
    clip_norm: float = 5.0
    seed: int = 0
    augment: Augment = field(default_factory=Augment)


class Classifier(nn.Module):
    """A copy of the video backbone under a new linear layer."""

    def __init__(self, model: Mmv, classes: int, dropout: float) -> None:
        super().__init__()
        self.backbone, self.dropout = copy.deepcopy(model.video_backbone), nn.Dropout(dropout)
        self.head = nn.Linear(self.backbone.dim, classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames.to(torch.float32) / 255.0
        feature = self.backbone(x.permute(0, 4, 1, 2, 3))
        return self.head(self.dropout(feature))


class ClipBatches(Dataset):
    """Item n is training batch n: a random clip of each video, every video once an epoch."""

    def __init__(
        self, files: list[Media], labels: np.ndarray, rule: VideoRule, how: FinetuneRecipe
    ) -> None:
        self.files, self.labels, self.rule, self.how = files, labels, rule, how
        self.size = min(how.batch_size, len(files))
        self.per_epoch = len(files) // self.size

    def __len__(self) -> int:
        return self.how.epochs * self.per_epoch

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, within = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.how.seed, epoch]).permutation(len(self.files))
        rng = np.random.default_rng([self.how.seed, epoch, within])
        clips, labels = [], []
        for index in order[within * self.size :][: self.size]:
            clip, label = self._clip(int(index), rng)
            clips.append(clip)
            labels.append(label)
        return torch.from_numpy(np.stack(clips)), torch.tensor(labels)

    def _clip(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """A random clip of a file, or of another one where it cannot be read."""
        for _ in range(ATTEMPTS):
            try:
                frames = frames_of(self.files[index], self.rule)
            except (MediaError, OSError, ValueError):
                index = int(rng.integers(len(self.files)))
                continue
            length, stride = self.rule.frames, self.rule.stride
            start = int(rng.integers(max(0, len(frames) - length * stride) + 1))
            rows = (start + np.arange(length) * stride) % len(frames)
            picture = (self.rule.resize, self.rule.crop)
            clip = augment(frames[rows], *picture, self.how.augment, rng)
            return clip, int(self.labels[index])
        raise TrainerError(f"{ATTEMPTS} files in a row could not be read")


def finetune(
    towers: TorchTowers,
    protocol: str,
    data: Labelled,
    how: FinetuneRecipe,
    *,
    windows: int = 10,
    splits: Sequence[int] = (1, 2, 3),
    workers: int = 2,
    say=print,
) -> Report:
    """Mean top-1 over the splits, a network from the checkpoint for each."""
    rule, results, missing = own_rule(towers.cfg), {}, 0
    for number in splits:
        if number > len(data.splits):
            continue
        train, test = data.splits[number - 1]
        learn = ClipBatches([data.files[n] for n in train], data.truth(train), rule, how)
        network = learn_split(towers, learn, len(data.classes), how, workers, say)
        files = [data.files[n] for n in test]
        scores, kept = judge(network, files, rule, windows, workers, towers)
        results[f"{protocol}.split{number}"] = 100 * top(scores, data.truth(test)[kept])
        missing += int((~kept).sum())
    if not results:
        raise ValueError(f"{protocol} has {len(data.splits)} splits, got {list(splits)}")
    mean = float(np.mean(list(results.values())))
    settings = {"recipe": {**vars(how), "augment": vars(how.augment)}, "test_windows": windows}
    results = {f"{protocol}.finetuned": mean, **results}
    name, count = f"{protocol}-finetuned", len(data.files)
    return Report(name, towers.source, results, settings, count, missing)


def learn_split(
    towers: TorchTowers,
    data: ClipBatches,
    classes: int,
    how: FinetuneRecipe,
    workers: int,
    say,
) -> Classifier:
    torch.manual_seed(how.seed)
    network = Classifier(towers.model, classes, how.dropout).train().to(towers.device)
    groups = [
        {"params": network.backbone.parameters(), "share": 1.0},
        {"params": network.head.parameters(), "share": how.head_lr_share},
    ]
    keys = {"momentum": how.momentum, "weight_decay": how.weight_decay}
    optimizer, steps = torch.optim.SGD(groups, lr=how.lr, **keys), len(data)
    half = towers.device.type == "cuda"
    loader = DataLoader(data, batch_size=None, sampler=range(steps), num_workers=workers)
    for step, (frames, labels) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = how.lr * group["share"] * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.autocast(towers.device.type, torch.bfloat16, enabled=half):
            out = network(frames.to(towers.device))
        loss = F.cross_entropy(out.float(), labels.to(towers.device))
        check_loss(loss.item(), f"step {step}", LOWER_RATE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), how.clip_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {step}: the gradient is not finite. {LOWER_RATE}")
        optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            say(f"step {step + 1}/{steps}  loss {loss.item():.3f}")
    return network.eval()


@torch.no_grad()
def judge(
    network: Classifier,
    files: list[Media],
    rule: VideoRule,
    windows: int,
    workers: int,
    towers: TorchTowers,
) -> tuple[np.ndarray, np.ndarray]:
    """(mean probabilities f64 [readable files, classes], which files those are)."""
    scores, kept = [], []
    for clips in ahead(lambda media: spread_windows(media, rule, windows), files, workers):
        kept.append(not isinstance(clips, Exception))
        if kept[-1]:
            parts = torch.from_numpy(clips).split(towers.batch_size)
            chances = [torch.softmax(network(p.to(towers.device)).float(), dim=1) for p in parts]
            scores.append(torch.cat(chances).mean(dim=0).double().cpu().numpy())
    if not scores:
        raise ValueError("none of the test files could be read")
    return np.stack(scores), np.array(kept)
