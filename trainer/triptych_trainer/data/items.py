"""A clip's origin: its file, its seconds, and the texts for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Caption:
    start_secs: float
    end_secs: float
    text: str


@dataclass(frozen=True)
class Item:
    """A file, or a part of one, that clips are drawn from."""

    url: str
    """What ffmpeg opens: a path, or a part of a tar (`subfile`)."""
    name: str
    span: tuple[float, float] | None = None
    """Seconds that clips must come from; None: anywhere."""
    captions: tuple[Caption, ...] = ()
    """With times, in order."""
    texts: tuple[str, ...] = ()
    """That hold for all of it."""


class Collection(Protocol):
    """Any item of a dataset by its number. Reading an item must not depend on what was read before:
    a resumed run starts in the middle."""

    def __len__(self) -> int: ...

    def item(self, index: int) -> Item: ...

    def texts(self, index: int) -> Sequence[str]: ...


def captions_of(raw: object) -> tuple[Caption, ...]:
    """Captions as [[start, end, text], ...], as [{"start", "end", "text"}, ...] or as HowTo100M's
    {"start": [...], "end": [...], "text": [...]}."""
    if isinstance(raw, dict):
        rows = list(zip(raw["start"], raw["end"], raw["text"], strict=True))
    elif isinstance(raw, list):
        rows = [(r["start"], r["end"], r["text"]) if isinstance(r, dict) else tuple(r) for r in raw]
    else:
        raise ValueError(f"captions are neither a list nor an object but {type(raw).__name__}")
    found = [
        Caption(float(start), float(end), text.strip())
        for start, end, text in rows
        # Empty cells become NaN on their way through pandas.
        if isinstance(text, str) and text.strip()
    ]
    return tuple(sorted(found, key=lambda c: (c.start_secs, c.end_secs)))


def texts_of(record: dict) -> tuple[str, ...]:
    """A record's texts without times: `text` or `caption`, or a list `texts`."""
    raw = record.get("texts") or [record.get("text") or record.get("caption") or ""]
    if not isinstance(raw, list) or not all(isinstance(text, str) for text in raw):
        raise ValueError("texts must be a list of strings")
    return tuple(text.strip() for text in raw if text.strip())


def span_of(start: object, end: object) -> tuple[float, float] | None:
    """(start, end) of two cells; None if both are empty. Without an end: to the end of the file."""
    if start in (None, "") and end in (None, ""):
        return None
    span = (float(start or 0.0), float("inf") if end in (None, "") else float(end))
    if not 0.0 <= span[0] < span[1]:
        raise ValueError(f"a span from {span[0]} to {span[1]} seconds")
    return span
