"""Held-out clips, in memory or as files. No training scene shares their seeds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import ModelConfig
from ..media import clips_of
from .captions import attribute_captions, evaluation_caption
from .dataset import plain_clip
from .files import write_video
from .scene import ATTRIBUTES, MOTIONS, Scene, scene_of

EVALUATION_SEED = 500
# Widths and heights of the files; the model sees the centre square, scaled to its own size.
SIZES = ((128, 128), (176, 144), (144, 176), (192, 192), (240, 180))
# Frames of 16:9 and the picture inside: a wide film, an upright one, and a wide film in 4:3.
FRAME = (256, 144)
BARS = {"letterbox": (256, 108), "pillarbox": (82, 144), "windowbox": (192, 108)}


@dataclass(frozen=True)
class HeldOut:
    """`count` clips of held-out set `number`."""

    scenes: list[Scene]
    captions: list[str]


def held_out_set(number: int, count: int) -> HeldOut:
    scenes = [scene_of(EVALUATION_SEED + number, i, held_out=True) for i in range(count)]
    return HeldOut(scenes, [evaluation_caption(scene) for scene in scenes])


def write_file(scene: Scene, index: int, path: Path, secs: float, bars: str = "none") -> None:
    """One clip as a file; frame rates take turns, and sizes where `bars` is none of `BARS`."""
    size, fps = BARS.get(bars, SIZES[index % len(SIZES)]), 25 if index % 3 else 30
    around = (0, 0)
    if bars in BARS:
        around = ((FRAME[1] - size[1]) // 2, (FRAME[0] - size[0]) // 2)
    write_video(path, [scene], secs_each=secs, size=size, fps=fps, bars=around)


def tensors(
    held_out: HeldOut, cfg: ModelConfig, folder: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Frames u8 [N, T, H, W, 3] and PCM f32 [N, samples]; by way of MP4 files in `folder`, or
    straight from the renderer."""
    frames, pcm = [], []
    for index, scene in enumerate(held_out.scenes):
        if folder is None:
            clip = plain_clip(scene, cfg)
        else:
            path = folder / f"{index:05}.mp4"
            write_file(scene, index, path, cfg.window_secs)
            clip = clips_of(path, cfg)[0]
            path.unlink()
        frames.append(clip.frames)
        pcm.append(clip.pcm)
    return np.stack(frames), np.stack(pcm)


def attribute_questions(held_out: HeldOut) -> dict[str, list[tuple[int, list[str], int]]]:
    """{attribute: [(clip, captions that differ in this attribute alone, the true one)]}.

    Clips that grow or shrink have no size to ask for.
    """
    questions: dict[str, list[tuple[int, list[str], int]]] = {}
    for name in ATTRIBUTES:
        questions[name] = []
        for clip, scene in enumerate(held_out.scenes):
            if name == "size" and MOTIONS[scene.motion] in ("growing", "shrinking"):
                continue
            texts, truth = attribute_captions(scene, name)
            questions[name].append((clip, texts, truth))
    return questions
