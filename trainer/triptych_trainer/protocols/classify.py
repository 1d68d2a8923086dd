"""Classifiers on frozen features: linear SVMs, and linear or small MLP heads by gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn
from torch.nn import functional as F

from ..errors import LOWER_RATE, check_loss


def svm_scores(train: np.ndarray, labels: np.ndarray, test: np.ndarray, c: float) -> np.ndarray:
    """StandardScaler and LinearSVC on every training window; the mean decision over the windows of
    each test file. train [N, W, D], labels [N], test [M, W, D] -> f64 [M, classes]."""
    if len(np.unique(labels)) < 2:
        raise ValueError("the training files have fewer than two classes")
    rows, windows = train.reshape(-1, train.shape[-1]), train.shape[1]
    scaler = StandardScaler().fit(rows)
    machine = LinearSVC(C=c, dual="auto", random_state=0, max_iter=5000)
    machine.fit(scaler.transform(rows), np.repeat(labels, windows))
    flat = scaler.transform(test.reshape(-1, test.shape[-1]))
    decisions = machine.decision_function(flat).reshape(len(test), test.shape[1], -1)
    mean = decisions.mean(axis=1)
    # Two classes have one decision.
    mean = np.concatenate([-mean, mean], axis=1) if mean.shape[1] == 1 else mean
    scores = np.full((len(test), int(labels.max()) + 1), -np.inf)
    scores[:, machine.classes_] = mean
    return scores


def top(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """Share of rows whose true class is among the k best; ties and NaN count against."""
    own = scores[np.arange(len(scores)), truth][:, None]
    return float(((~(scores < own)).sum(axis=1) <= k).mean())


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> tuple[float, int]:
    """(mean over the classes that have a positive, how many those are); [N, classes] each."""
    if not np.isfinite(scores).all():
        raise FloatingPointError("scores that are not finite")
    present = np.flatnonzero(truth.any(axis=0))
    if not len(present):
        raise ValueError("no class has a positive")
    each = [average_precision_score(truth[:, c], scores[:, c]) for c in present]
    return float(np.mean(each)), len(present)


def eleven_point_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """PASCAL VOC 2007's average precision: the best precision at recalls of 0, 0.1 … 1."""
    order = np.argsort(-scores, kind="stable")
    hits = truth[order].astype(bool)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    recall = np.cumsum(hits) / max(1, hits.sum())
    # One per cent of slack for what rounding does to a recall of 0.3.
    levels = [precision[recall >= level - 1e-9] for level in np.linspace(0, 1, 11)]
    return float(np.mean([reached.max() if len(reached) else 0.0 for reached in levels]))


@dataclass(frozen=True)
class HeadRecipe:
    """How a head on frozen features is trained."""

    hidden: int = 0
    """Units of the hidden layer (with BatchNorm and ReLU); 0: linear."""
    epochs: int = 30
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-5
    seed: int = 0


def head_scores(
    train: np.ndarray,
    targets: np.ndarray,
    test: np.ndarray,
    classes: int,
    how: HeadRecipe,
    say: Callable[[str], None] = print,
) -> np.ndarray:
    """Adam with half a cosine on standardised features. `targets` i64 [N] learn by softmax, f32
    [N, classes] by binary cross-entropy. Windows as in `svm_scores`; probabilities are averaged."""
    multi = targets.ndim == 2
    mean = train.reshape(-1, train.shape[-1]).mean(axis=0)
    deviation = train.reshape(-1, train.shape[-1]).std(axis=0) + 1e-6
    torch.manual_seed(how.seed)
    head, rng = make_head(train.shape[-1], classes, how.hidden), np.random.default_rng(how.seed)
    optimizer = torch.optim.Adam(head.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    files, windows = len(train), train.shape[1]
    batches = max(1, math.ceil(files / how.batch_size))
    for epoch in range(how.epochs):
        order, total = rng.permutation(files), 0.0
        for n, rows in enumerate(np.array_split(order, batches)):
            done = (epoch + n / batches) / how.epochs
            optimizer.param_groups[0]["lr"] = how.lr * 0.5 * (1 + math.cos(math.pi * done))
            # One window of each file at a time: they are near-duplicates.
            picked = train[rows, rng.integers(windows, size=len(rows))]
            x = torch.from_numpy(((picked - mean) / deviation).astype(np.float32))
            y = torch.from_numpy(targets[rows])
            out = head(x)
            loss = F.binary_cross_entropy_with_logits(out, y) if multi else F.cross_entropy(out, y)
            check_loss(loss.item(), f"epoch {epoch}", LOWER_RATE)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        if (epoch + 1) % 10 == 0:
            say(f"epoch {epoch + 1}/{how.epochs}  loss {total / files:.4f}")
    return _probabilities(head.eval(), test, mean, deviation, multi=multi)


def make_head(inputs: int, classes: int, hidden: int) -> nn.Module:
    if not hidden:
        return nn.Linear(inputs, classes)
    first = nn.Linear(inputs, hidden)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes))


@torch.no_grad()
def _probabilities(
    head: nn.Module, test: np.ndarray, mean: np.ndarray, deviation: np.ndarray, *, multi: bool
) -> np.ndarray:
    """f64 [files, classes], a few files at a time."""
    parts = []
    for i in range(0, len(test), 512):
        x = torch.from_numpy(((test[i : i + 512] - mean) / deviation).astype(np.float32))
        out = head(x.flatten(0, 1))
        chances = torch.sigmoid(out) if multi else torch.softmax(out, dim=1)
        parts.append(chances.reshape(*x.shape[:2], -1).mean(dim=1).double().numpy())
    return np.concatenate(parts)
