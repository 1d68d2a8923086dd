"""Sounds: ESC-50 by a linear SVM, AudioSet by a small MLP."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.listings import audioset_file, audioset_rows
from ..errors import TrainerError
from ..reading import of_file, read_rows
from .classify import HeadRecipe, head_scores, mean_average_precision, svm_scores, top
from .features import Extractor
from .report import Report
from .towers import FEATURE
from .windows import Media

FOLDS = 5


def esc50(extractor: Extractor, root: Path, *, c: float = 1e-3, windows: int = 10) -> Report:
    """Mean top-1 over the five published folds. ESC-50's own layout: `meta/esc50.csv`, `audio/`."""
    table = root / "meta" / "esc50.csv"
    rows = read_rows(table, ("filename", "fold", "target"))
    files = [Media(root / "audio" / row["filename"]) for row in rows]
    with of_file(table, "ESC-50's list, with numbers for fold and target"):
        folds = np.array([int(row["fold"]) for row in rows])
        labels = np.array([int(row["target"]) for row in rows])
    features = extractor.sounds(files, windows, FEATURE)
    results: dict[str, float] = {}
    for fold in range(1, FOLDS + 1):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        x, kept = features.of(train)
        shown, judged = features.of(test)
        scores = svm_scores(x, labels[train][kept], shown, c)
        results[f"esc50.fold{fold}"] = 100 * top(scores, labels[test][judged])
    mean = float(np.mean(list(results.values())))
    missing, source = int(features.missing.sum()), extractor.towers.source
    settings = {"c": c, "windows": windows, "feature": "last layer of the audio backbone"}
    return Report("esc50", source, {"esc50.linear": mean, **results}, settings, len(files), missing)


@dataclass
class Tagged:
    files: list[Media]
    targets: np.ndarray
    """f32 [files, classes]"""


def audioset_list(table: Path, folder: Path, class_of: dict[str, int]) -> Tagged:
    """One of AudioSet's CSVs of segments with the files of its rows."""
    by_stem = {path.stem: path for path in sorted(folder.rglob("*")) if path.is_file()}
    rows = audioset_rows(table)
    files = [Media(audioset_file(by_stem, row) or folder / f"{row[0]}.wav") for row in rows]
    targets = np.zeros((len(rows), len(class_of)), np.float32)
    for n, (_, _, _, labels) in enumerate(rows):
        if unknown := [label for label in labels if label not in class_of]:
            raise TrainerError(f"{table}: the label {unknown[0]!r} is not in the list of classes")
        targets[n, [class_of[label] for label in labels]] = 1.0
    return Tagged(files, targets)


def audioset_classes(path: Path) -> dict[str, int]:
    """`class_labels_indices.csv`: `index`, `mid`, `display_name`."""
    rows = read_rows(path, ("index", "mid"))
    with of_file(path, "AudioSet's list of classes, with numbers for index"):
        return {row["mid"]: int(row["index"]) for row in rows}


def audioset(
    extractor: Extractor, train: Tagged, test: Tagged, how: HeadRecipe, *, windows: int = 10
) -> Report:
    """Mean average precision of an MLP on the frozen audio feature."""
    learn = extractor.sounds(train.files, windows, FEATURE)
    judge = extractor.sounds(test.files, windows, FEATURE)
    x, kept = learn.of(range(len(train.files)))
    shown, judged = judge.of(range(len(test.files)))
    classes = train.targets.shape[1]
    scores = head_scores(x, train.targets[kept], shown, classes, how, extractor.say)
    value, present = mean_average_precision(scores, test.targets[judged])
    settings = {"windows": windows, "head": vars(how), "classes_in_test": present}
    files, missing = len(train.files) + len(test.files), int(learn.missing.sum())
    missing += int(judge.missing.sum())
    source = extractor.towers.source
    return Report("audioset", source, {"audioset.map": 100 * value}, settings, files, missing)
