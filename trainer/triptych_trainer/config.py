"""What a model is made of. Everything the towers and the exporter need to know is here."""

import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from .data.config import DataConfig
from .errors import TrainerError
from .reading import of_file


@dataclass(frozen=True)
class ModelConfig:
    """One MMV model (MMV specification, sections 1-6). The defaults are the paper's."""

    video_width: float = 1.0
    """Multiplies every channel count of the video backbone; 2 with `tsm` is TSM-ResNet50x2."""
    audio_width: float = 1.0
    """Multiplies every channel count of the audio ResNet50."""
    frames: int = 32
    """Frames per clip (T); even, because the stem folds pairs of frames."""
    fps: float = 10.0
    resize: int = 224
    """Shorter side after the resize, pixels."""
    crop: int = 200
    """Side of the square crop, pixels; even."""
    picture: str = "shown"
    """`shown`: frames as they are meant to be shown; `stored`: as they are coded."""
    bars: str = "crop"
    """`crop`: pictures without black bars around them; `keep`: with them."""
    sample_rate_hz: int = 48_000
    samples: int = 153_600
    """PCM samples per clip: frames / fps seconds."""
    vocab_size: int = 65_536
    word_dim: int = 300
    text_hidden: int = 2048
    max_words: int = 16
    freeze_words: bool = True
    """MMV keeps its word2vec table fixed."""
    fine_dim: int = 512
    coarse_dim: int = 256
    stem: str = "s2d"
    """`s2d`: space-to-depth, 24 channels, the public checkpoints' form; `rgb`: 7x7x7."""
    audio_log: str = "log1p10000"
    """`log1p10000`: log(1 + 10000 mel); `eps1e-6`: log(mel + 1e-6)."""
    backbone: str = "s3d"
    """`s3d`: S3D-G; `tsm`: TSM-ResNet50."""
    spaces: str = "fac"
    """`fac`, `shared`, `disjoint`, `vt` (video and text) or `va` (video and audio)."""
    video_head: str = "mlp"
    """`mlp`: the paper's; `linear`: the public MIL-NCE weights' (not with `fac`)."""
    pool_padding: str = "same"
    """`fixed`: how the public MIL-NCE weights' own code pads the pools of S3D-G."""

    def __post_init__(self) -> None:
        if self.frames % 2 or self.crop % 2:
            raise ValueError("frames and crop must be even")
        if abs(self.frames / self.fps - self.samples / self.sample_rate_hz) > 1e-6:
            raise ValueError("frames / fps must equal samples / sample_rate_hz")
        if self.picture not in ("shown", "stored"):
            raise ValueError(f"unknown picture {self.picture!r}")
        if self.bars not in ("crop", "keep"):
            raise ValueError(f"unknown bars {self.bars!r}")
        if self.stem not in ("s2d", "rgb"):
            raise ValueError(f"unknown stem {self.stem!r}")
        if self.backbone not in ("s3d", "tsm"):
            raise ValueError(f"unknown video backbone {self.backbone!r}")
        if self.spaces not in ("fac", "shared", "disjoint", "vt", "va"):
            raise ValueError(f"unknown spaces {self.spaces!r}")
        if self.video_head not in ("mlp", "linear"):
            raise ValueError(f"unknown video head {self.video_head!r}")
        if self.video_head == "linear" and self.spaces == "fac":
            raise ValueError("fac spaces need the mlp head of video")

    @property
    def window_secs(self) -> float:
        return self.frames / self.fps

    def to_dict(self) -> dict:
        return asdict(self)


SMALL_WORLD = ModelConfig(
    video_width=0.25,
    audio_width=0.25,
    frames=8,
    fps=2.5,
    resize=64,
    crop=64,
    vocab_size=512,
    text_hidden=512,
)
"""The towers of the bundle that ships."""


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Everything random follows from `seed`."""

    model: ModelConfig = SMALL_WORLD
    data: DataConfig = field(default_factory=DataConfig)
    name: str = "small-world"
    seed: int = 1
    batch_size: int = 32
    """Clips of all ranks together."""
    steps: int = 2200
    audio_from_step: int = 1000
    """Until then only video and text learn: sound costs half of a step, and has nothing to learn
    from a video tower that does not know anything yet. Its learning rate starts here too."""
    text_from_step: int = 500
    text_lr_share: float = 0.2
    """The text tower stays a random projection until then and learns slowly afterwards. If it
    learned from the first step, it would learn to ignore whatever the video tower cannot
    distinguish yet, above all shape and motion, and neither side would ever recover them."""
    lr: float = 2e-3
    warmup_steps: int = 100
    final_lr_share: float = 0.0
    """The half cosine ends at this share of `lr`."""
    weight_video_audio: float = 1.0
    weight_video_text: float = 1.0
    """The paper: 10 to 1 on HowTo100M alone, 1 to 1 with AudioSet."""
    loss_form: str = "asymmetric"
    """`asymmetric`: MMV's; `symmetric`: one loss for each direction."""
    sync_bn: bool = True
    """BatchNorm statistics over all ranks, in backbones and heads; nothing changes with one."""
    temperature: float = 0.07
    clip_norm: float = 5.0
    """Gradients are scaled down to this norm."""
    device: str = "auto"
    """`auto`: CUDA where there is a device; `cpu`, `cuda`."""
    precision: str = "auto"
    """`auto`: bf16 (autocast of towers and heads) on CUDA, f32 on a CPU; `bf16`: CUDA alone; `f32`.
    Weights, optimizer and losses are f32 in any case."""
    threads: int = 1
    workers: int = 1
    """Processes that make batches beside the trainer; 0 makes them in the loop."""
    log_every: int = 20
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"unknown device {self.device!r}")
        if self.precision not in ("auto", "f32", "bf16"):
            raise ValueError(f"unknown precision {self.precision!r}")

    def to_dict(self) -> dict:
        return asdict(self)


TINY = ModelConfig(
    video_width=0.0625,
    audio_width=0.0625,
    frames=8,
    fps=2.5,
    resize=32,
    crop=32,
    vocab_size=128,
    word_dim=32,
    text_hidden=32,
    fine_dim=32,
    coarse_dim=16,
)
"""Towers for tests: right in every part, too small to learn much."""

SMALL = TrainConfig()
LARGE = TrainConfig(
    model=ModelConfig(),
    batch_size=512,
    steps=500_000,
    lr=2e-3,
    warmup_steps=5000,
    # The paper trains all towers from the first step on.
    audio_from_step=0,
    text_from_step=0,
    text_lr_share=1.0,
    workers=12,
    log_every=50,
    checkpoint_every=1000,
)
"""The paper's settings where they are published; `docs/training.md` says which are not."""


def _ablation(name: str, spaces: str) -> TrainConfig:
    """The small world with another head graph, all else alike; shorter than what ships."""
    model = replace(SMALL.model, spaces=spaces)
    cfg = replace(SMALL, name=f"ablation-{name}", model=model, steps=1000)
    # Without text there is nothing to learn before sound begins.
    return replace(cfg, text_from_step=250, audio_from_step=0 if spaces == "va" else 400)


def _large(name: str, **model: Any) -> TrainConfig:
    return replace(LARGE, name=name, model=replace(LARGE.model, **model))


PRESETS = {
    # From scratch, towers one after the other.
    "small-world": SMALL,
    # Goes on from its weights: pictures and texts alone, sound keeps what it has.
    "small-world-pictures": replace(
        SMALL, seed=2, steps=3100, audio_from_step=3100, text_from_step=0, lr=1.2e-3
    ),
    # Goes on from those: all three together.
    "small-world-joint": replace(
        SMALL, seed=3, steps=1500, audio_from_step=0, text_from_step=0, lr=6e-4
    ),
    "mmv-s3d": _large("mmv-s3d"),
    "mmv-tsm50": _large("mmv-tsm50", backbone="tsm"),
    "mmv-tsm50x2": _large("mmv-tsm50x2", backbone="tsm", video_width=2.0),
    **{f"ablation-{spaces}": _ablation(spaces, spaces) for spaces in ("shared", "disjoint", "fac")},
    "ablation-va": _ablation("va", "va"),
    "ablation-vt": _ablation("vt", "vt"),
    "ablation-vat": _ablation("vat", "fac"),
    "tiny": TrainConfig(
        model=TINY,
        name="tiny",
        batch_size=8,
        steps=6,
        audio_from_step=1,
        text_from_step=1,
        warmup_steps=2,
        workers=0,
        log_every=1,
    ),
}


def from_dict(kind: type, values: dict[str, Any], base: Any = None) -> Any:
    """A dataclass of nested mappings; what they leave out is `base`'s, or the default."""
    hints, known = get_type_hints(kind), {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise TrainerError(f"{kind.__name__} has no setting {', '.join(unknown)}")
    changed = {}
    for name, value in values.items():
        hint = hints[name]
        if is_dataclass(hint) and not isinstance(value, dict):
            raise TrainerError(f"{kind.__name__}.{name} is {value!r}, but must be a table")
        inner = get_args(hint)[0] if get_args(hint) else None
        if is_dataclass(hint):
            value = from_dict(hint, value, None if base is None else getattr(base, name))
        elif is_dataclass(inner):
            value = tuple(from_dict(inner, one) for one in value)
        else:
            _check_kind(f"{kind.__name__}.{name}", value, hint)
        changed[name] = value
    return kind(**changed) if base is None else replace(base, **changed)


def _check_kind(name: str, value: Any, hint: Any) -> None:
    """A value of another kind would fail somewhere in the middle of the work."""
    kinds = [one for one in (get_args(hint) or (hint,)) if one in (int, float, str, bool)]
    if not kinds or (value is None and type(None) in get_args(hint)):
        return
    # TOML writes 1 for 1.0; Python takes True for 1.
    allowed = (*kinds, int) if float in kinds else tuple(kinds)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(one.__name__ for one in kinds)
        raise TrainerError(f"{name} is {value!r}, but must be of type {names}")


def load_config(name: str) -> TrainConfig:
    """A preset by its name, or a TOML file, which starts from its `preset`."""
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix != ".toml":
        known = ", ".join(PRESETS)
        raise TrainerError(f"no configuration {name!r}: a TOML file, or one of {known}")
    with of_file(path, "a TOML file of settings"):
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        preset = values.pop("preset", "small-world")
        if preset not in PRESETS:
            raise TrainerError(f"{path}: no preset {preset!r}; there are {', '.join(PRESETS)}")
        return from_dict(TrainConfig, {"name": path.stem} | values, PRESETS[preset])
