"""webdataset shards: tars with the files of a sample side by side (`000017.mp4`, `000017.json`).

Read with the standard library and not through the webdataset package: that one streams shards
through a shuffle buffer, so where a stopped run was can only be found again by reading everything
before it. Here the tars' tables of contents are read once, and any sample can be opened at once.
The video is not copied out: ffmpeg reads its bytes inside the tar, and seeks there.
"""

import glob
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..reading import of_file
from .config import Source
from .items import Item, captions_of, span_of, texts_of

VIDEO_SUFFIXES = ("mp4", "webm", "mkv", "avi", "mov", "m4v")
TEXT_SUFFIXES = ("json", "txt")


@dataclass(frozen=True)
class Piece:
    """Bytes of a tar."""

    offset: int
    size: int


@dataclass(frozen=True)
class Sample:
    shard: int
    key: str
    video: Piece
    record: Piece | None
    text: Piece | None


class Shards:
    """`index` is a pattern such as `train-*.tar`. The JSON may have `text` or `caption`, `texts`,
    `captions` with times, `start` and `end`; a `.txt` is one text."""

    def __init__(self, source: Source) -> None:
        pattern = str(Path(source.root) / source.index) if source.root else source.index
        self.paths = sorted(glob.glob(pattern))
        self.samples = [s for n, path in enumerate(self.paths) for s in samples_of(n, path)]

    def __len__(self) -> int:
        return len(self.samples)

    def item(self, index: int) -> Item:
        sample = self.samples[index]
        path, video = self.paths[sample.shard], sample.video
        url = f"subfile,,start,{video.offset},end,{video.offset + video.size},,:{path}"
        record = self._record(sample)
        captions = captions_of(record["captions"]) if record.get("captions") else ()
        span = span_of(record.get("start"), record.get("end"))
        return Item(url, f"{path}: {sample.key}", span, captions, texts_of(record))

    def texts(self, index: int) -> Sequence[str]:
        record = self._record(self.samples[index])
        captions = captions_of(record["captions"]) if record.get("captions") else ()
        return [*texts_of(record), *(c.text for c in captions)]

    def _record(self, sample: Sample) -> dict:
        record = json.loads(self._read(sample, sample.record)) if sample.record else {}
        if not isinstance(record, dict):
            raise ValueError(f"{sample.key}: its JSON is not an object")
        if sample.text and not texts_of(record):
            record["text"] = self._read(sample, sample.text).decode()
        return record

    def _read(self, sample: Sample, piece: Piece) -> bytes:
        with open(self.paths[sample.shard], "rb") as file:
            file.seek(piece.offset)
            return file.read(piece.size)


def samples_of(shard: int, path: str) -> list[Sample]:
    """A tar's samples by webdataset's rule: all up to the first dot of the name is the key."""
    pieces: dict[str, dict[str, Piece]] = {}
    with of_file(path, "a tar of webdataset"), tarfile.open(path, "r:") as tar:
        for member in tar:
            if not member.isreg():
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            pieces.setdefault(key, {})[suffix.lower()] = Piece(member.offset_data, member.size)
    found = []
    for key, by_suffix in pieces.items():
        video = next((by_suffix[s] for s in VIDEO_SUFFIXES if s in by_suffix), None)
        if video is not None:
            record, text = (by_suffix.get(s) for s in TEXT_SUFFIXES)
            found.append(Sample(shard, key, video, record, text))
    return found
