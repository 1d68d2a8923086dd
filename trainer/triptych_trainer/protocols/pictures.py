"""Pictures through deflated networks: PASCAL VOC 2007 and ImageNet, linear (table 3)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from ..reading import read_lines
from .classify import HeadRecipe, eleven_point_precision, head_scores, top
from .features import Extractor
from .report import Report
from .towers import FEATURE
from .windows import Media

WAYS = {"naive": "naive", "deflated": "image", "inflated": "inflated"}
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass
class Voc:
    """Files of one list; truth [files, classes]: 1 there, -1 not there, 0 difficult."""

    files: list[Media]
    classes: list[str]
    truth: np.ndarray


def voc07_list(root: Path, part: str) -> Voc:
    """`VOC2007/ImageSets/Main/<class>_<part>.txt` and `VOC2007/JPEGImages`."""
    root = root / "VOC2007" if (root / "VOC2007").is_dir() else root
    lists = sorted((root / "ImageSets" / "Main").glob(f"*_{part}.txt"))
    if not lists:
        raise ValueError(f"{root}: no ImageSets/Main/*_{part}.txt")
    columns, names = [], None
    for path in lists:
        rows = read_lines(path, "a picture and a mark", _marked)
        found = [name for name, _ in rows]
        if names is not None and found != names:
            raise ValueError(f"{path} lists other pictures than {lists[0]}")
        names = found
        columns.append([mark for _, mark in rows])
    files = [Media(root / "JPEGImages" / f"{name}.jpg") for name in names]
    classes = [path.stem.removesuffix(f"_{part}") for path in lists]
    return Voc(files, classes, np.array(columns).T)


def _marked(line: str) -> tuple[str, int]:
    name, mark = line.split()
    return name, int(mark)


def voc07(extractor: Extractor, root: Path, ways: tuple[str, ...], *, c: float = 1e-3) -> Report:
    """One linear SVM per class on trainval; VOC's own average precision on test."""
    cfg, results, missing = extractor.towers.cfg, {}, 0
    train, test = voc07_list(root, "trainval"), voc07_list(root, "test")
    for way in ways:
        sizes = (cfg.resize, cfg.crop, FEATURE)
        learn = extractor.pictures(train.files, WAYS[way], *sizes)
        judge = extractor.pictures(test.files, WAYS[way], *sizes)
        x, kept = learn.of(range(len(train.files)))
        shown, judged = judge.of(range(len(test.files)))
        scaler = StandardScaler().fit(x[:, 0])
        x, shown = scaler.transform(x[:, 0]), scaler.transform(shown[:, 0])
        each = []
        for n in range(len(train.classes)):
            marks, truth = train.truth[kept, n], test.truth[judged, n]
            # Difficult ones teach nothing and are not judged.
            machine = LinearSVC(C=c, dual="auto", random_state=0, max_iter=5000)
            machine.fit(x[marks != 0], marks[marks != 0] > 0)
            scores = machine.decision_function(shown[truth != 0])
            each.append(eleven_point_precision(scores, truth[truth != 0] > 0))
        results[f"voc07.{way}"] = 100 * float(np.mean(each))
        missing = int(learn.missing.sum() + judge.missing.sum())
    files = len(train.files) + len(test.files)
    settings = {"c": c, "average_precision": "11 points", "classes": len(train.classes)}
    return Report("voc07", extractor.towers.source, results, settings, files, missing)


def imagenet_list(folder: Path, classes: list[str]) -> tuple[list[Media], np.ndarray]:
    """`<folder>/<wnid>/*.JPEG`."""
    files, labels = [], []
    for number, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                files.append(Media(path))
                labels.append(number)
    return files, np.array(labels)


def imagenet(extractor: Extractor, root: Path, ways: tuple[str, ...], how: HeadRecipe) -> Report:
    """Top-1 and top-5 of softmax regression; `train` and `val` with a folder per class."""
    cfg, results, missing = extractor.towers.cfg, {}, 0
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    train, labels = imagenet_list(root / "train", classes)
    test, truth = imagenet_list(root / "val", classes)
    for way in ways:
        sizes = (cfg.resize, cfg.crop, FEATURE)
        learn = extractor.pictures(train, WAYS[way], *sizes)
        judge = extractor.pictures(test, WAYS[way], *sizes)
        x, kept = learn.of(range(len(train)))
        shown, judged = judge.of(range(len(test)))
        scores = head_scores(x, labels[kept], shown, len(classes), how, extractor.say)
        for k in (1, 5):
            results[f"imagenet.{way}.top{k}"] = 100 * top(scores, truth[judged], k)
        missing = int(learn.missing.sum() + judge.missing.sum())
    settings = {"head": vars(how), "classes": len(classes)}
    files = len(train) + len(test)
    return Report("imagenet", extractor.towers.source, results, settings, files, missing)
