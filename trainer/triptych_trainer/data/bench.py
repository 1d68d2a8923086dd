"""What a batch of real files costs, apart from the network: whether a GPU would wait for data."""

import resource
import time
from dataclasses import asdict, dataclass

from torch.utils.data import DataLoader

from ..config import TrainConfig
from .batches import RealBatches


@dataclass(frozen=True)
class DataCost:
    clips: int
    clips_per_sec: float
    cpu_secs_per_clip: float
    """Of workers and ffmpeg together."""
    skipped: int

    def to_dict(self) -> dict:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def data_cost(cfg: TrainConfig, batches: int) -> DataCost:
    """Makes the first batches of a run and throws them away."""
    data = RealBatches(cfg)
    loader = DataLoader(data, batch_size=None, sampler=range(batches), num_workers=cfg.workers)
    before, started = _cpu_secs(), time.monotonic()
    skipped = sum(int(batch["skipped"]) for batch in loader)
    taken = time.monotonic() - started
    # Workers count once they have ended, which leaving the loop makes them do.
    del loader
    clips = batches * cfg.batch_size
    return DataCost(clips, clips / taken, (_cpu_secs() - before) / clips, skipped)


def _cpu_secs() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in both)
