"""The sound rules of a folder, as fields of the manifest, and the same cutting in Python."""

from dataclasses import dataclass

import numpy as np

from .errors import Refused
from .folder import HfFolder
from .library import LOCAL, transformers
from .loading import first_line

GOLDEN_SEED = 78


@dataclass(frozen=True)
class Sound:
    """An audio tower's preprocessing."""

    sample_rate_hz: int
    samples: int
    short: str
    multiple: int = 1
    edge: str = "zeros"

    def manifest(self) -> dict:
        found: dict = {
            "sample_rate_hz": self.sample_rate_hz,
            "samples": self.samples,
            "stride_secs": self.samples / self.sample_rate_hz,
            "short": self.short,
        }
        if self.short == "as_is":
            found |= {"multiple": self.multiple, "edge": self.edge}
        return found

    def padded(self, pcm: np.ndarray) -> np.ndarray:
        """One window, f32 [S], of at most `samples` samples of sound."""
        pcm = np.asarray(pcm, np.float32)[: self.samples]
        missing = self.samples - len(pcm)
        if self.short == "as_is":
            rest = -len(pcm) % self.multiple
            return np.pad(pcm, (0, rest), "reflect" if self.edge == "reflect" else "constant")
        if missing == 0 or len(pcm) == 0:
            return np.pad(pcm, (0, missing))
        if self.short == "loop":
            return np.resize(pcm, self.samples)
        if self.short == "repeat_zeros":
            pcm = np.tile(pcm, self.samples // len(pcm))
        return np.pad(pcm, (0, self.samples - len(pcm)))


def feature_extractor(folder: HfFolder):
    """transformers' own processor of sound of this folder."""
    if not folder.has("preprocessor_config.json") and not folder.has("processor_config.json"):
        raise Refused(
            f"{folder.path} has no preprocessor_config.json, which defines how sound is cut: "
            "download the whole folder again"
        )
    try:
        return transformers().AutoFeatureExtractor.from_pretrained(str(folder.path), **LOCAL)
    except Exception as error:
        raise Refused(
            f"preprocessor_config.json in {folder.path} cannot be used: {first_line(error)}"
        ) from error


def tones(rows: int, samples: int, rate: int) -> np.ndarray:
    """f32 [rows, samples]: sliding tones under noise that fades; the last row ends in silence."""
    rng = np.random.default_rng(GOLDEN_SEED)
    t = np.arange(samples) / rate
    out = []
    for row in range(rows):
        slide = 2 * np.pi * (200 * (row + 1) * t + 300 * t**2)
        noise = rng.normal(0, 0.1, samples) * np.linspace(1, 0.01, samples)
        out.append(0.4 * np.sin(slide) + noise)
    found = np.stack(out).astype(np.float32)
    found[-1, samples * 4 // 5 :] = 0
    return found
