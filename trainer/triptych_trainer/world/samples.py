"""The bundle's sample clips: real files to search in, and what PyTorch gives for every clip."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save

from ..errors import TrainerError
from ..media import FileClip, clips_of
from ..models.mmv import Mmv
from .captions import evaluation_caption
from .files import write_video, write_wav
from .scene import ATTRIBUTES, MOTIONS, Scene, draw_scene
from .sound import synthesise

SAMPLES_SEED = 9_000_000_042
SECS = 3.2
# A path never ends inside the picture: things that cross it need the edge to be the model's edge.
LANDSCAPE = ("up", "down", "circling", "shaking", "growing", "shrinking")
PORTRAIT = ("left", "right", "circling", "shaking", "growing", "shrinking")


@dataclass(frozen=True)
class Reel:
    """One sample file."""

    file: str
    scenes: int
    size: tuple[int, int] = (192, 192)
    fps: int = 25
    motions: tuple[str, ...] = MOTIONS
    secs_each: float = SECS
    extra_secs: float = 0.0


REELS = (
    Reel("reel-01.mp4", 6),
    Reel("reel-02.mp4", 8, fps=30),
    Reel("reel-03.webm", 5),
    Reel("reel-04.mp4", 4, (256, 192), motions=LANDSCAPE),
    Reel("reel-05.mp4", 5, (144, 192), 30, PORTRAIT),
    Reel("reel-06.webm", 4, (256, 192), 30, LANDSCAPE),
    Reel("reel-07.mp4", 7, (160, 160)),
    # Its last clip overlaps the one before: the end belongs to no whole window.
    Reel("reel-08.mp4", 3, extra_secs=1.6),
    Reel("clip-09.mp4", 1),
    Reel("clip-10.webm", 1),
    Reel("clip-11.mp4", 1, (144, 192), 30, PORTRAIT),
    # Shorter than a window.
    Reel("clip-12.mp4", 1, secs_each=2.0),
)
DEMO_TEXT_AT = ("reel-01.mp4", 3)
DEMO_AUDIO_AT = ("reel-02.mp4", 5)


def choose_scenes() -> dict[str, list[Scene]]:
    """Scenes by file. No two have the same description, so every question has one right answer."""
    rng = np.random.default_rng(SAMPLES_SEED)
    taken: set[str] = set()
    chosen: dict[str, list[Scene]] = {}
    for reel in REELS:
        scenes: list[Scene] = []
        while len(scenes) < reel.scenes:
            scene = draw_scene(rng)
            text = evaluation_caption(scene)
            if MOTIONS[scene.motion] in reel.motions and text not in taken:
                taken.add(text)
                scenes.append(scene)
        chosen[reel.file] = scenes
    return chosen


def write_samples(model: Mmv, out: Path) -> None:
    """Writes samples/: clips, demo query, contents and the golden vectors of every clip."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "clips").mkdir(parents=True)
    chosen = choose_scenes()
    contents = []
    for reel in REELS:
        scenes = chosen[reel.file]
        write_video(
            out / "clips" / reel.file,
            scenes,
            secs_each=reel.secs_each,
            size=reel.size,
            fps=reel.fps,
            extra_secs=reel.extra_secs,
        )
        contents.append({"file": f"clips/{reel.file}", "scenes": _timeline(reel, scenes)})
    demo = _write_demo(out, chosen)
    _write_json(out / "contents.json", {"files": contents, "demo_answers": demo})
    write_goldens(model, out)


def _timeline(reel: Reel, scenes: list[Scene]) -> list[dict]:
    rows = []
    for n, scene in enumerate(scenes):
        end = (n + 1) * reel.secs_each + (reel.extra_secs if n + 1 == len(scenes) else 0.0)
        row = {"start_secs": round(n * reel.secs_each, 3), "end_secs": round(end, 3)}
        rows.append(row | {"caption": evaluation_caption(scene), **scene.labels()})
    return rows


def _write_demo(out: Path, chosen: dict[str, list[Scene]]) -> dict:
    """demo.json and query.wav; returns where the right answers are."""
    text_file, text_at = DEMO_TEXT_AT
    audio_file, audio_at = DEMO_AUDIO_AT
    text = evaluation_caption(chosen[text_file][text_at])
    # The sound of another scene that has the same attributes: no copy of anything in the clips.
    like = chosen[audio_file][audio_at]
    given = {name: getattr(like, name) for name in ATTRIBUTES}
    other = draw_scene(np.random.default_rng(SAMPLES_SEED + 1), given)
    write_wav(out / "query.wav", synthesise(other, 5.0, round(SECS * 48_000)))
    _write_json(out / "demo.json", {"text": text, "audio": "query.wav"})
    answer = lambda file, at: {"file": f"clips/{file}", "start_secs": round(at * SECS, 3)}  # noqa: E731
    return {
        "text": {"query": text, **answer(text_file, text_at)},
        "audio": {
            "query": "query.wav",
            "sounds_like": evaluation_caption(like),
            **answer(audio_file, audio_at),
        },
    }


@torch.no_grad()
def write_goldens(model: Mmv, out: Path) -> None:
    """goldens.safetensors and goldens.json: file to vector, the whole path in PyTorch."""
    tensors: dict[str, np.ndarray] = {}
    rows: list[dict] = []
    files = [f"clips/{reel.file}" for reel in REELS] + ["query.wav"]
    for file in files:
        for number, clip in enumerate(clips_of(out / file, model.cfg)):
            for track, space, vector in _vectors(model, clip):
                name = f"{file}#{number}.{track}.{space}"
                tensors[name] = vector
                rows.append(
                    {
                        "tensor": name,
                        "file": file,
                        "clip": number,
                        "start_secs": round(clip.start_secs, 6),
                        "end_secs": round(clip.end_secs, 6),
                        "track": track,
                        "space": space,
                    }
                )
    (out / "goldens.safetensors").write_bytes(save(tensors))
    about = "un-normalised vectors that PyTorch gave: decode, resize, crop, cut, tower"
    _write_json(out / "goldens.json", {"about": about, "normalised": False, "vectors": rows})


@torch.no_grad()
def sound_again(model: Mmv, out: Path) -> None:
    """New golden vectors of sound, from another sound network, for clips that stay as they are."""
    path = out / "goldens.safetensors"
    tensors = load_file(path)
    for file in sorted({name.rpartition("#")[0] for name in tensors}):
        for number, clip in enumerate(clips_of(out / file, model.cfg)):
            if clip.pcm is None:
                continue
            found = model.embed_audio(torch.from_numpy(np.ascontiguousarray(clip.pcm[None])))
            for space, vector in found.items():
                name = f"{file}#{number}.audio.{space}"
                if name not in tensors:
                    raise TrainerError(f"{path} has no vector {name}: write the samples again")
                tensors[name] = vector[0].numpy().copy()
    path.write_bytes(save(tensors))


def _vectors(model: Mmv, clip: FileClip) -> list[tuple[str, str, np.ndarray]]:
    """(track, space, f32 [dim]) of one clip."""
    found = []
    if clip.frames is not None:
        out = model.embed_video(torch.from_numpy(clip.frames[None]))
        found += [("video", space, v[0].numpy().copy()) for space, v in out.items()]
    if clip.pcm is not None:
        out = model.embed_audio(torch.from_numpy(np.ascontiguousarray(clip.pcm[None])))
        found += [("audio", space, v[0].numpy().copy()) for space, v in out.items()]
    return found


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
