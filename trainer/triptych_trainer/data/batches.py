"""Training batches of real files: any batch from its number alone."""

import json
import logging
import subprocess
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from ..bars import without_bars
from ..clips import Span, cut_frames, cut_sound
from ..config import TrainConfig
from ..distributed import rank, world_size
from ..errors import TrainerError
from ..media import MediaError, decode, probe
from ..models.audio_frontend import LogMel
from .augment import augment, noisy
from .listings import open_source
from .sampling import draw
from .words import words_of

ATTEMPTS = 50
BROKEN = (
    MediaError,
    OSError,
    ValueError,
    KeyError,
    json.JSONDecodeError,
    subprocess.SubprocessError,
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RealClip:
    frames: np.ndarray
    """u8 [T, crop, crop, 3]"""
    pcm: np.ndarray | None
    """f32 [samples]; None for a clip without sound."""
    token_ids: np.ndarray
    """i64 [candidates, max_words]; padding alone where there is no text."""


class RealBatches(Dataset):
    """Item n is this rank's part of training batch n, whoever asks and whenever.

    Every dataset is gone through in a new random order each time. A clip's draws follow from the
    seed, the dataset and the clip's place in that sequence, so neither workers, ranks nor a stop
    in between change them. A broken file is counted, and another clip takes its place.

    Beside what `WorldBatches` gives: `audio_mask` f32 [B] (0 for a clip without sound) and
    `skipped`, how many files were broken.
    """

    def __init__(self, cfg: TrainConfig) -> None:
        self.cfg, self.data = cfg, cfg.data
        self.collections = [open_source(source) for source in cfg.data.sources]
        self.counts = cfg.data.counts(cfg.batch_size, world_size())
        self.rank, self.ranks = rank(), world_size()
        self.words = words_of(cfg)
        self.tokenizer = self.words.tokenizer() if self.words else None
        self.log_mel = LogMel(cfg.model.audio_log)
        self.orders: dict[int, tuple[int, np.ndarray]] = {}
        self.reported: set[str] = set()

    def __len__(self) -> int:
        return self.cfg.steps

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        clips, skipped = [], 0
        audible = step >= self.cfg.audio_from_step
        for source, count in enumerate(self.counts):
            share = count // self.ranks
            for row in range(self.rank * share, (self.rank + 1) * share):
                clip, broken = self._clip(source, step * count + row, audible=audible)
                clips.append(clip)
                skipped += broken
        ids = np.stack([clip.token_ids for clip in clips])
        batch = {
            "frames": torch.from_numpy(np.stack([clip.frames for clip in clips])),
            "token_ids": torch.from_numpy(ids),
            "text_mask": torch.from_numpy((ids > 0).any(axis=(1, 2)).astype(np.float32)),
            "skipped": torch.tensor(float(skipped)),
        }
        if audible:
            silence = np.zeros(self.cfg.model.samples, np.float32)
            pcm = np.stack([silence if clip.pcm is None else clip.pcm for clip in clips])
            with torch.no_grad():
                batch["logmel"] = self.log_mel(torch.from_numpy(pcm))
            batch["audio_mask"] = torch.tensor([float(clip.pcm is not None) for clip in clips])
        return batch

    def _clip(self, source: int, place: int, *, audible: bool) -> tuple[RealClip, int]:
        """The clip at a place in a dataset's endless sequence, and how many files were broken."""
        collection = self.collections[source]
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng([self.cfg.seed, source, place, attempt])
            index = int(rng.integers(len(collection))) if attempt else self._index(source, place)
            try:
                return self._read(source, index, rng, audible=audible), attempt
            except BROKEN as error:
                self._report(source, index, error)
        name = self.data.sources[source].name
        raise TrainerError(f"{name}: {ATTEMPTS} files in a row could not be read; see the warnings")

    def _index(self, source: int, place: int) -> int:
        size = len(self.collections[source])
        turn, within = divmod(place, size)
        if self.orders.get(source, (-1,))[0] != turn:
            rng = np.random.default_rng([self.cfg.seed, source, turn])
            self.orders[source] = (turn, rng.permutation(size))
        return int(self.orders[source][1][within])

    def _read(
        self, source: int, index: int, rng: np.random.Generator, *, audible: bool
    ) -> RealClip:
        model, data = self.cfg.model, self.data
        item = self.collections[source].item(index)
        kinds, duration_secs = probe(item.url)
        if "Video" not in kinds:
            raise MediaError(f"{item.name}: no video stream")
        start, texts = draw(
            item, duration_secs, model.window_secs, data.caption_secs, data.candidates, rng
        )
        # On the grid that the server cuts clips on.
        start = int(start * model.fps) / model.fps
        wanted = {k: v for k, v in kinds.items() if audible or k == "Video"}
        length = (start, model.window_secs)
        found = decode(
            item.url,
            model.fps,
            model.sample_rate_hz,
            span=length,
            probed=(wanted, duration_secs),
            shown=model.picture == "shown",
        )
        if found.frames is None or not len(found.frames):
            raise MediaError(f"{item.name}: no frame at {start:.1f} s")
        span = Span(0, min(len(found.frames), model.frames))
        frames = found.frames[: model.frames]
        if model.bars == "crop":
            frames = without_bars(frames, model.frames)
        frames = augment(frames, model.resize, model.crop, data.augment, rng)
        pcm = None
        if found.pcm is not None:
            pcm = cut_sound(found.pcm, span, model.frames, model.samples)
        if pcm is not None:
            pcm = noisy(pcm, data.augment.sound_noise, rng)
        return RealClip(cut_frames(frames, span, model.frames), pcm, self._token_ids(texts))

    def _token_ids(self, texts: list[str]) -> np.ndarray:
        """Fewer texts than candidates start over; texts without a known word are left out."""
        width = self.cfg.model.max_words
        ids = np.zeros((self.data.candidates, width), np.int64)
        if self.words is None:
            return ids
        rows = [self.words.encode(self.tokenizer, text, width) for text in texts]
        rows = [row for row in rows if row.any()]
        for n in range(len(ids) if rows else 0):
            ids[n] = rows[n % len(rows)]
        return ids

    def _report(self, source: int, index: int, error: Exception) -> None:
        """Once per file and worker."""
        what = f"{self.data.sources[source].name}, item {index}: {error}"
        if what not in self.reported:
            self.reported.add(what)
            log.warning("skipped %s", what)


class RankShare(Dataset):
    """This rank's rows of batches that another dataset makes whole. Every rank makes all of them:
    right for the small world, whose clips of a batch depend on each other."""

    def __init__(self, whole: Dataset) -> None:
        self.whole, self.rank, self.ranks = whole, rank(), world_size()

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        batch = self.whole[step]
        size = len(batch["frames"])
        if size % self.ranks:
            raise ValueError(f"a batch of {size} clips for {self.ranks} ranks")
        share = size // self.ranks
        return {k: x[self.rank * share :][:share] for k, x in batch.items()}
