"""Zero-shot text to video: MSR-VTT and YouCook2."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.listings import VIDEO_SUFFIXES, with_suffix
from ..metrics import normalised, retrieval
from ..models.heads import shared_space
from ..reading import of_file, read_rows
from .features import Extractor
from .report import Report
from .windows import Media, VideoRule


@dataclass(frozen=True)
class Pair:
    text: str
    media: Media


def msrvtt_pairs(table: Path, videos: Path) -> list[Pair]:
    """The CSV of 1,000 test pairs: `video_id` and `sentence`."""
    rows = read_rows(table, ("video_id", "sentence"))
    return [Pair(row["sentence"], Media(found(videos / row["video_id"]))) for row in rows]


def youcook2_pairs(table: Path, videos: Path) -> list[Pair]:
    """The MIL-NCE authors' CSV: `video_id`, `task`, `start`, `end`, `text`; videos are in
    `validation/<task>/`, or all in one folder."""
    pairs = []
    for row in read_rows(table, ("video_id", "task", "start", "end", "text")):
        nested = videos / "validation" / row["task"]
        folder = nested if nested.is_dir() else videos
        with of_file(table, "YouCook2's list, with start and end in seconds"):
            span = (float(row["start"]), float(row["end"]))
        pairs.append(Pair(row["text"], Media(found(folder / row["video_id"]), span)))
    return pairs


def found(path: Path) -> Path:
    """The video of that name; where there is none, the name, which is then counted as missing."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return path
    try:
        return with_suffix(path)
    except FileNotFoundError:
        return path


def zero_shot(
    extractor: Extractor,
    protocol: str,
    pairs: list[Pair],
    *,
    windows: int = 10,
    score: str = "cosine",
) -> Report:
    """R@1, R@5, R@10 and the median rank of each text's own video. A video is the mean of its
    windows' vectors; `dot` leaves its length as it is, as the MIL-NCE authors do."""
    if score not in ("cosine", "dot"):
        raise ValueError(f"unknown score {score!r}")
    cfg = extractor.towers.cfg
    space = shared_space(cfg.spaces, "text", "video")
    if space is None:
        raise ValueError(f"{cfg.spaces} spaces include none that texts and videos share")
    rule = VideoRule(cfg.fps, 1, cfg.frames, cfg.resize, cfg.crop, cfg.bars)
    videos, kept = extractor.spread([p.media for p in pairs], rule, windows, space).of(
        range(len(pairs))
    )
    texts = extractor.texts([p.text for p, k in zip(pairs, kept, strict=True) if k], space)
    mean = videos.astype(np.float64).mean(axis=1)
    vectors = normalised(mean) if score == "cosine" else mean
    measured = retrieval(normalised(texts) @ vectors.T)
    results = {f"{protocol}.{k}": 100 * v for k, v in measured.items() if k != "median_rank"}
    results[f"{protocol}.median_rank"] = measured["median_rank"]
    settings = {"windows": windows, "score": score, "space": space, "fps": cfg.fps}
    missing = len(pairs) - len(videos)
    return Report(protocol, extractor.towers.source, results, settings, len(pairs), missing)
