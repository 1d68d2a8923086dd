"""Lists of action datasets: UCF101, HMDB51 and Kinetics-600 as they are published."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import TrainerError
from ..reading import of_file, read_lines, read_rows
from .windows import Media


@dataclass
class Labelled:
    """Files with their classes, and the numbers of the files in each split."""

    files: list[Media] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    splits: list[tuple[list[int], list[int]]] = field(default_factory=list)
    """(training, test)"""

    def truth(self, index: list[int]) -> np.ndarray:
        return np.array(self.labels)[index]


def ucf101(videos: Path, lists: Path) -> Labelled:
    """`<Class>/v_<Class>_g01_c01.avi`, and `classInd.txt`, `trainlist01.txt`, `testlist01.txt` …"""
    numbers = read_lines(lists / "classInd.txt", "a number and a class", _numbered)
    classes = [name for _, name in sorted(numbers)]
    data, at = Labelled(classes=classes), {}
    for path in sorted(lists.glob("testlist*.txt")):
        split = ([], [])
        for part, name in enumerate(("trainlist", "testlist")):
            listed = lists / path.name.replace("testlist", name)
            for file in read_lines(listed, "a file", lambda line: line.split()[0]):
                split[part].append(_file(data, at, videos / file, classes))
        data.splits.append(split)
    return _checked(data, lists)


def _file(data: Labelled, at: dict[Path, int], path: Path, classes: list[str]) -> int:
    """The number of a file whose folder is its class."""
    if path not in at:
        at[path] = len(data.files)
        data.files.append(Media(path))
        if path.parent.name not in classes:
            raise TrainerError(
                f"{path.parent.name}/{path.name} is listed, and {path.parent.name!r} is none of "
                "the classes: take all lists from one download"
            )
        data.labels.append(classes.index(path.parent.name))
    return at[path]


def hmdb51(videos: Path, lists: Path) -> Labelled:
    """`<class>/<name>.avi`, and `<class>_test_split1.txt` … with a 1 for training, a 2 for test."""
    names = sorted(
        {re.sub(r"_test_split\d+$", "", p.stem) for p in lists.glob("*_test_split*.txt")}
    )
    numbers = {int(p.stem[-1]) for p in lists.glob("*_test_split*.txt")}
    data, at = Labelled(classes=names), {}
    for number in sorted(numbers):
        split = ([], [])
        for name in names:
            listed = lists / f"{name}_test_split{number}.txt"
            for file, part in read_lines(listed, "a file and 0, 1 or 2", _parted):
                # 0: in neither.
                if part:
                    split[part - 1].append(_file(data, at, videos / name / file, names))
        data.splits.append(split)
    return _checked(data, lists)


def kinetics(videos: Path, train: Path, test: Path) -> Labelled:
    """The published CSVs (`label`, `youtube_id`, `time_start`, `time_end`) and files as the usual
    downloader names them, `<label>/<id>_000012_000022.mp4`, under `train`, `val` … or all in one
    folder."""
    columns = ("label", "youtube_id", "time_start", "time_end")
    rows = [read_rows(train, columns), read_rows(test, columns)]
    classes = sorted({row["label"] for part in rows for row in part})
    number = {name: n for n, name in enumerate(classes)}
    by_stem = {path.stem: path for path in sorted(videos.rglob("*")) if path.is_file()}
    data, split = Labelled(classes=classes), ([], [])
    for part, listed in enumerate(rows):
        for row in listed:
            with of_file((train, test)[part], "a list of Kinetics, with times in seconds"):
                start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
            stem = f"{row['youtube_id']}_{start:06d}_{end:06d}"
            split[part].append(len(data.files))
            data.files.append(Media(by_stem.get(stem, videos / f"{stem}.mp4")))
            data.labels.append(number[row["label"]])
    data.splits.append(split)
    return _checked(data, train)


def _numbered(line: str) -> tuple[int, str]:
    number, name = line.split()
    return int(number), name


def _parted(line: str) -> tuple[str, int]:
    file, part = line.split()
    return file, ("0", "1", "2").index(part)


def _checked(data: Labelled, where: Path) -> Labelled:
    if not data.splits or not all(train and test for train, test in data.splits):
        raise ValueError(f"{where}: no split with both training and test files")
    return data
