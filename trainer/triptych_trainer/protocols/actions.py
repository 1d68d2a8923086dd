"""Linear classification of actions on frozen features: UCF101, HMDB51, Kinetics-600."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..config import ModelConfig
from .classify import HeadRecipe, head_scores, svm_scores, top
from .features import Extractor, Features
from .report import Report
from .splits import Labelled
from .towers import FEATURE
from .windows import VideoRule


def ucf101_rule(cfg: ModelConfig) -> VideoRule:
    """The published evaluation: every second frame at 25 fps, 224 pixels, the first 20 s. A model
    of another crop keeps its own sizes."""
    rule = VideoRule(25.0, 2, cfg.frames, cfg.resize, cfg.crop, cfg.bars, max_secs=20.0)
    return replace(rule, resize=224, crop=224) if cfg.crop in (200, 224) else rule


def own_rule(cfg: ModelConfig) -> VideoRule:
    """As the model was trained."""
    return VideoRule(cfg.fps, 1, cfg.frames, cfg.resize, cfg.crop, cfg.bars)


HMDB51_C = {("s3d", 1.0): 3e-4, ("tsm", 1.0): 1e-4, ("tsm", 2.0): 3e-4}
"""By backbone and width."""


def hmdb51_c(cfg: ModelConfig) -> float:
    return HMDB51_C.get((cfg.backbone, cfg.video_width), 3e-4)


def linear_svm(
    extractor: Extractor,
    protocol: str,
    data: Labelled,
    rule: VideoRule,
    c: float,
    *,
    epochs: int = 10,
    windows: int = 10,
    splits: Sequence[int] = (1, 2, 3),
) -> Report:
    """Mean top-1 over the splits. Features once for all of them: `epochs` random windows of each
    file to learn from, `windows` spread ones to be judged by."""
    chosen = [data.splits[n - 1] for n in splits if n <= len(data.splits)]
    if not chosen:
        raise ValueError(f"{protocol} has {len(data.splits)} splits, got {list(splits)}")
    learn = extractor.random(data.files, rule, epochs, FEATURE)
    judge = extractor.spread(data.files, rule, windows, FEATURE)
    results: dict[str, float] = {}
    for number, (train, test) in zip(splits, chosen, strict=False):
        x, kept = learn.of(train)
        shown, judged = judge.of(test)
        scores = svm_scores(x, data.truth(train)[kept], shown, c)
        results[f"{protocol}.split{number}"] = 100 * _top(scores, data.truth(test)[judged])
    mean = float(np.mean(list(results.values())))
    settings = {"c": c, "train_windows": epochs, "test_windows": windows, "rule": vars(rule)}
    missing = int((learn.missing | judge.missing).sum())
    name, source = f"{protocol}.linear", extractor.towers.source
    return Report(protocol, source, {name: mean, **results}, settings, len(data.files), missing)


def _top(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """A class that no training file has cannot be right."""
    lacking = int(truth.max()) + 1 - scores.shape[1]
    if lacking > 0:
        scores = np.pad(scores, ((0, 0), (0, lacking)), constant_values=-np.inf)
    return top(scores, truth, k)


def kinetics_linear(
    extractor: Extractor,
    data: Labelled,
    how: HeadRecipe,
    *,
    train_windows: int = 4,
    windows: int = 10,
) -> Report:
    """Softmax regression by gradient: a linear SVM over 390,000 videos would not end."""
    rule = own_rule(extractor.towers.cfg)
    (train, test), files = data.splits[0], data.files
    learn = extractor.random([files[n] for n in train], rule, train_windows, FEATURE)
    judge = extractor.spread([files[n] for n in test], rule, windows, FEATURE)
    x, kept = learn.of(range(len(train)))
    shown, judged = judge.of(range(len(test)))
    labels, truth = data.truth(train)[kept], data.truth(test)[judged]
    scores = head_scores(x, labels, shown, len(data.classes), how, extractor.say)
    results = {
        "kinetics600.linear": 100 * top(scores, truth),
        "kinetics600.top5": 100 * top(scores, truth, 5),
    }
    settings = {"train_windows": train_windows, "test_windows": windows, "head": vars(how)}
    missing = _missing(learn, judge)
    source = extractor.towers.source
    return Report("kinetics600", source, results, settings, len(files), missing)


def _missing(*features: Features) -> int:
    return sum(int(one.missing.sum()) for one in features)
