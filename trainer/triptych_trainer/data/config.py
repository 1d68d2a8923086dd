"""What real data a model is trained on, and how its clips are disturbed."""

from dataclasses import dataclass, field

KINDS = ("shards", "manifest", "howto100m", "audioset")


@dataclass(frozen=True)
class Source:
    """One dataset. Its losses are its own: other datasets' clips are no negatives of its clips."""

    name: str
    kind: str
    """`shards`: webdataset tars; `manifest`: CSV or JSONL; `howto100m`; `audioset`."""
    index: str
    """The manifest, HowTo100M's list of videos, AudioSet's segments, or a pattern of tars."""
    root: str = ""
    """Folder that the paths of the index are in; where the index is, if empty."""
    captions: str = ""
    """HowTo100M: folder of one CSV or JSON per video with start, end and text."""
    share: float = 1.0
    """Part of every batch, beside the shares of the other datasets."""
    weight_video_audio: float | None = None
    weight_video_text: float | None = None
    """In place of the configuration's; 0 leaves the loss out."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: unknown kind of data {self.kind!r}, not of {KINDS}")
        if not self.share > 0:
            raise ValueError(f"{self.name}: share must be above 0")


@dataclass(frozen=True)
class Augment:
    """MMV specification, section 7, with DMVR's numbers."""

    scale_jitter: float = 0.2
    """Height and width are scaled apart, each by up to this much, before the resize."""
    scale_jitter_chance: float = 0.8
    random_crop: bool = True
    flip_chance: float = 0.5
    colour_chance: float = 0.8
    brightness: float = 32 / 255
    saturation: float = 0.4
    contrast: float = 0.4
    hue: float = 0.2
    """Largest turn of the hue, in whole turns."""
    sound_noise: float = 0.0
    """Gaussian noise, as a share of the loudest sample. VATT: 0.01; MMV's is not known."""


@dataclass(frozen=True)
class Part:
    """The rows of a batch that came from one dataset, and what its losses weigh."""

    name: str
    rows: slice
    weight_video_audio: float
    weight_video_text: float


@dataclass(frozen=True)
class DataConfig:
    """Without sources the data is the procedural small world."""

    sources: tuple[Source, ...] = ()
    words: str = ""
    """The word list, one a line; `vocabulary` makes one."""
    word_vectors: str = ""
    """Rows of the word table for that list, .npy f32 [words, word_dim]; random rows without."""
    candidates: int = 5
    """Captions per clip, MIL-NCE's candidate positives."""
    caption_secs: float = 4.0
    """A clip starts within its caption, or within this long around the middle of a shorter one."""
    augment: Augment = field(default_factory=Augment)

    def counts(self, batch_size: int, ranks: int = 1) -> list[int]:
        """Clips of each dataset in the batch of all ranks."""
        whole, found = sum(s.share for s in self.sources), []
        for source in self.sources:
            count = batch_size * source.share / whole
            if abs(count - round(count)) > 1e-6 or round(count) % ranks or count < 1:
                raise ValueError(
                    f"{source.name}: its share of a batch of {batch_size} is {count:g} clips, "
                    f"which does not divide evenly among {ranks} ranks"
                )
            found.append(round(count))
        return found
