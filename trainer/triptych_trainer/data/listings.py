"""Datasets that are a list of files: CSV and JSONL manifests, HowTo100M, AudioSet."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import TrainerError
from ..reading import of_file, read_rows
from .config import Source
from .items import Caption, Collection, Item, captions_of, span_of, texts_of
from .shards import Shards

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v")


def open_source(source: Source) -> Collection:
    found = {
        "shards": Shards,
        "manifest": Manifest,
        "howto100m": HowTo100M,
        "audioset": AudioSet,
    }[source.kind](source)
    if not len(found):
        raise ValueError(f"{source.name}: {source.index} lists nothing")
    return found


def folder_of(source: Source) -> Path:
    return Path(source.root) if source.root else Path(source.index).parent


class Manifest:
    """A CSV with a header or a JSONL, one clip or file a row.

    `path` is needed. `start` and `end`, seconds: only this part. `text` (or `caption`): said of all
    of it. JSONL only: `texts`, several of them, and `captions` with times (`items.captions_of`).
    """

    def __init__(self, source: Source) -> None:
        self.folder, self.path = folder_of(source), Path(source.index)
        self.lines = self.rows = None
        if self.path.suffix.lower() in (".jsonl", ".ndjson"):
            # Where each line begins: millions of parsed records would fill every worker's memory.
            self.lines = _line_starts(self.path)
        else:
            self.rows = read_rows(self.path, ("path",))

    def __len__(self) -> int:
        return len(self.lines if self.rows is None else self.rows)

    def item(self, index: int) -> Item:
        record = self._record(index)
        if not isinstance(record.get("path"), str) or not record["path"]:
            raise ValueError(f"{self.path}, record {index + 1}: no path")
        path = self.folder / record["path"]
        span = span_of(record.get("start"), record.get("end"))
        return Item(str(path), record["path"], span, self._captions(record), texts_of(record))

    def texts(self, index: int) -> Sequence[str]:
        record = self._record(index)
        return [*texts_of(record), *(c.text for c in self._captions(record))]

    def _captions(self, record: dict) -> tuple[Caption, ...]:
        raw = record.get("captions")
        return captions_of(raw) if raw else ()

    def _record(self, index: int) -> dict:
        if self.rows is not None:
            return self.rows[index]
        with self.path.open("rb") as file:
            file.seek(int(self.lines[index]))
            record = json.loads(file.readline())
        if not isinstance(record, dict):
            raise ValueError(f"{self.path}, record {index + 1}: not an object")
        return record


class HowTo100M:
    """HowTo100M as its authors' loader reads it: a CSV of videos (`video_path` or `video_id`) and,
    in `captions`, one CSV or JSON per video with `start`, `end`, `text`."""

    def __init__(self, source: Source) -> None:
        self.folder = folder_of(source)
        self.captions = Path(source.captions) if source.captions else self.folder
        rows = read_rows(Path(source.index), ())
        column = "video_path" if rows and "video_path" in rows[0] else "video_id"
        if rows and column not in rows[0]:
            raise ValueError(f"{source.index}: no column video_path or video_id")
        self.names = sorted({row[column] for row in rows})

    def __len__(self) -> int:
        return len(self.names)

    def item(self, index: int) -> Item:
        name = self.names[index]
        path = self.folder / name
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            path = with_suffix(path)
        return Item(str(path), name, captions=self._captions(name))

    def texts(self, index: int) -> Sequence[str]:
        return [caption.text for caption in self._captions(self.names[index])]

    def _captions(self, name: str) -> tuple[Caption, ...]:
        stem = self.captions / name
        if stem.suffix.lower() in VIDEO_SUFFIXES:
            stem = stem.with_suffix("")
        table = stem.with_name(stem.name + ".csv")
        if table.exists():
            return captions_of(read_rows(table, ("start", "end", "text")))
        return captions_of(json.loads(stem.with_name(stem.name + ".json").read_text()))


class AudioSet:
    """AudioSet's own CSVs (`# YTID, start_seconds, end_seconds, positive_labels`) and a folder of
    files. Clips have no text.

    A file is the ten seconds of its row, named `<id>_<start>...` or `<id>`.
    """

    def __init__(self, source: Source) -> None:
        folder = folder_of(source)
        self.rows = audioset_rows(Path(source.index))
        by_stem = {path.stem: path for path in sorted(folder.rglob("*")) if path.is_file()}
        self.files = [audioset_file(by_stem, row) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, index: int) -> Item:
        path = self.files[index]
        if path is None:
            # Videos vanish from the site: a row without its file counts as a broken one.
            raise FileNotFoundError(f"{self.rows[index][0]}: not in the folder")
        return Item(str(path), path.name)

    def texts(self, index: int) -> Sequence[str]:
        return ()


def audioset_rows(path: Path) -> list[tuple[str, float, float, tuple[str, ...]]]:
    """(id, start, end, labels) of every row."""
    rows = []
    with of_file(path, "one of AudioSet's lists"), path.open(newline="", encoding="utf-8") as file:
        lines = (line for line in file if not line.startswith("# ") and line.strip())
        for row in csv.reader(lines, skipinitialspace=True):
            if len(row) != 4:
                raise TrainerError(f"{path}: expected 4 columns, found {row}")
            rows.append((row[0], float(row[1]), float(row[2]), tuple(row[3].split(","))))
    return rows


def audioset_file(by_stem: dict[str, Path], row: tuple) -> Path | None:
    """The row's file under any of the names that downloaders give."""
    name, start, end, _ = row
    spans = (
        f"_{start:.3f}_{end:.3f}",
        f"_{start:g}_{end:g}",
        f"_{round(start * 1000)}_{round(end * 1000)}",
        f"_{int(start):06d}_{int(end):06d}",
        f"_{round(start * 1000)}",
        f"_{start:g}",
        "",
    )
    return next((by_stem[name + s] for s in spans if name + s in by_stem), None)


def with_suffix(path: Path) -> Path:
    """The video of that name, whatever its container."""
    tried = [path.with_name(path.name + suffix) for suffix in VIDEO_SUFFIXES]
    found = next((candidate for candidate in tried if candidate.exists()), None)
    if found is None:
        raise FileNotFoundError(f"{path}: no video of that name")
    return found


def _line_starts(path: Path) -> np.ndarray:
    starts, at = [], 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                starts.append(at)
            at += len(line)
    return np.array(starts, np.int64)
