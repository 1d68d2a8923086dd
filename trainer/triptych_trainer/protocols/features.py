"""Features of a dataset, extracted once and kept."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .towers import Towers
from .windows import Media, VideoRule, ahead, picture, random_windows, sound_windows, spread_windows


@dataclass
class Features:
    """f32 [files, windows, dim]; `missing` [files] is true where a file could not be read."""

    rows: np.ndarray
    missing: np.ndarray

    def of(self, index: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(rows of the readable files among `index`, which of them those are)."""
        index = np.asarray(index, int)
        kept = ~self.missing[index]
        return self.rows[index[kept]], kept


@dataclass(frozen=True)
class Extractor:
    """Runs towers over files. Results are kept in `cache` under what they depend on: the model,
    the files, the windows."""

    towers: Towers
    cache: Path | None = None
    workers: int = 2
    say: Callable[[str], None] = print

    def spread(self, files: Sequence[Media], rule: VideoRule, count: int, output: str) -> Features:
        """Evenly spread windows of videos."""
        key = {"windows": "spread", "rule": asdict(rule), "count": count}
        return self._all("video", files, output, key, lambda n, m: spread_windows(m, rule, count))

    def random(
        self, files: Sequence[Media], rule: VideoRule, count: int, output: str, seed: int = 0
    ) -> Features:
        """Random windows of videos, cropped and flipped at random."""
        key = {"windows": "random", "rule": asdict(rule), "count": count, "seed": seed}

        def make(number: int, media: Media) -> np.ndarray:
            return random_windows(media, rule, count, np.random.default_rng([seed, number]))

        return self._all("video", files, output, key, make)

    def sounds(self, files: Sequence[Media], count: int, output: str) -> Features:
        cfg = self.towers.cfg
        key = {"windows": "sound", "count": count, "samples": cfg.samples}
        rate = cfg.sample_rate_hz
        make = lambda n, media: sound_windows(media, rate, cfg.samples, count)  # noqa: E731
        return self._all("audio", files, output, key, make)

    def pictures(
        self, files: Sequence[Media], way: str, resize: int, crop: int, output: str
    ) -> Features:
        """`way`: the `image` or `naive` tower, or `inflated` through the video tower."""
        key = {"windows": "picture", "resize": resize, "crop": crop, "way": way}
        if way != "inflated":
            return self._all(way, files, output, key, lambda n, m: picture(m, resize, crop))
        frames = self.towers.cfg.frames

        def still(number: int, media: Media) -> np.ndarray:
            return np.repeat(picture(media, resize, crop)[:, None], frames, axis=1)

        return self._all("video", files, output, key, still)

    def texts(self, texts: Sequence[str], output: str) -> np.ndarray:
        """f32 [texts, dim]."""
        if self.towers.text is None:
            raise ValueError("this model has no words: a published checkpoint needs --vocab")
        ids = self.towers.text.ids(texts, self.towers.cfg.max_words)
        return self.towers.run("text", ids)[output]

    def _all(
        self, tower: str, files: Sequence[Media], output: str, key: dict, make: Callable
    ) -> Features:
        if not files:
            raise ValueError("the dataset lists no files")
        described = key | {"tower": tower, "output": output, "files": [m.key for m in files]}
        described |= {"model": self.towers.digest}
        name = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]
        path = None if self.cache is None else self.cache / f"{name}.npz"
        if path is not None and path.exists():
            try:
                kept = np.load(path)
                return Features(kept["rows"], kept["missing"])
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                self.say(f"{path} is damaged ({error}): its features are extracted again")
        made = self._run(tower, files, output, make)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part.npz")
            np.savez(part, rows=made.rows, missing=made.missing)
            part.replace(path)
        return made

    def _run(self, tower: str, files: Sequence[Media], output: str, make: Callable) -> Features:
        rows: list[np.ndarray | None] = []
        windows = ahead(lambda one: make(*one), list(enumerate(files)), self.workers)
        for media, found in zip(files, windows, strict=True):
            if isinstance(found, Exception):
                self.say(f"left out: {found}")
                rows.append(None)
            else:
                rows.append(self.towers.run(tower, found)[output])
            if len(rows) % 500 == 0:
                self.say(f"{len(rows)}/{len(files)} files, {media.path.name}")
        missing = np.array([row is None for row in rows])
        if missing.all():
            raise ValueError(f"none of {len(files)} files could be read, {files[0].path} first")
        shape = next(row for row in rows if row is not None).shape
        filled = [np.zeros(shape, np.float32) if row is None else row for row in rows]
        return Features(np.stack(filled).astype(np.float32), missing)
