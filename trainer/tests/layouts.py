"""Tiny videos, and training sets of them in the layouts that people have."""

import json
import tarfile
from pathlib import Path

import numpy as np

from triptych_trainer.config import TINY, TrainConfig
from triptych_trainer.data.config import DataConfig, Source
from triptych_trainer.world.files import write_video
from triptych_trainer.world.scene import scene_of

WORDS = ("red", "circle", "square", "moving", "left", "sound", "big", "star")
SECS = 5.0


def video(path: Path, number: int, secs: float = SECS, *, sound: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = ((64, 48), (48, 64), (64, 64))[number % 3]
    write_video(path, [scene_of(31, number)], secs_each=secs, size=size, fps=10, sound=sound)
    return path


def words(folder: Path) -> str:
    path = folder / "words.txt"
    path.write_text("".join(f"{word}\n" for word in WORDS))
    return str(path)


def caption(number: int) -> str:
    return f"the {WORDS[number % len(WORDS)]} {WORDS[(number + 3) % len(WORDS)]} zzz{number}"


def howto100m(folder: Path, count: int = 5) -> Source:
    """`videos.csv`, videos, and a CSV or a JSON of captions for each."""
    names = [f"vid{n}.mp4" for n in range(count)]
    for n, name in enumerate(names):
        video(folder / "videos" / name, n, sound=n != 2)
        rows = [(0.6 * k, 0.6 * k + 0.5, caption(n + k)) for k in range(8)]
        (folder / "captions").mkdir(exist_ok=True)
        if n % 2:
            columns = dict(
                zip(("start", "end", "text"), map(list, zip(*rows, strict=True)), strict=True)
            )
            (folder / "captions" / f"vid{n}.json").write_text(json.dumps(columns))
        else:
            lines = ["start,end,text", *(f"{s},{e},{t}" for s, e, t in rows)]
            (folder / "captions" / f"vid{n}.csv").write_text("\n".join(lines) + "\n")
    (folder / "videos.csv").write_text(
        "\n".join(["video_path,category", *(f"{n},x" for n in names)]) + "\n"
    )
    captions = str(folder / "captions")
    return Source("ht", "howto100m", str(folder / "videos.csv"), str(folder / "videos"), captions)


AUDIOSET_HEAD = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=4, num_segs=4\n"


def audioset(folder: Path, count: int = 4, name: str = "balanced_train_segments.csv") -> Source:
    lines = ["# YTID, start_seconds, end_seconds, positive_labels"]
    for n in range(count):
        start = 30.0 * n
        lines.append(f'-id{n}, {start:.3f}, {start + 10:.3f}, "/m/0{n % 2},/t/dd0{n % 3}"')
        stem = (f"-id{n}", f"-id{n}_{start:.3f}_{start + 10:.3f}")[n % 2]
        video(folder / "clips" / f"{stem}.mp4", 10 + n)
    (folder / name).write_text(AUDIOSET_HEAD + "\n".join(lines) + "\n")
    return Source("as", "audioset", str(folder / name), str(folder / "clips"))


def manifest(folder: Path, suffix: str = ".jsonl") -> Source:
    """Three files, one of them twice; the JSONL has captions with and without times."""
    paths = [video(folder / f"m{n}.mp4", 20 + n).name for n in range(3)]
    path = folder / f"list{suffix}"
    if suffix == ".csv":
        rows = [f'{paths[0]},1.5,,"red circle, big"', f"{paths[1]},,,", f"{paths[2]},0,2,star"]
        path.write_text("\n".join(["path,start,end,text", *rows]) + "\n")
    else:
        records = [
            {"path": paths[0], "start": 1.5, "end": 5.0, "text": "red circle"},
            {"path": paths[1], "captions": [[0, 2, "square"], [2, 4, "star left"]]},
            {"path": paths[2], "texts": ["big star", "moving left", "unknownword"]},
            {"path": paths[0]},
        ]
        path.write_text("".join(json.dumps(record) + "\n\n" for record in records))
    return Source("list", "manifest", str(path))


def shards(folder: Path, tars: int = 2, each: int = 2) -> Source:
    for t in range(tars):
        with tarfile.open(folder / f"train-{t:04}.tar", "w") as tar:
            for n in range(each):
                file = video(folder / f"s{t}{n}.mp4", 40 + 10 * t + n)
                tar.add(file, f"set/{n:06}.mp4")
                record = folder / "record.json"
                record.write_text(json.dumps({"text": caption(n), "other": t}))
                tar.add(record, f"set/{n:06}.json")
    return Source("tars", "shards", str(folder / "train-*.tar"))


def tiny_config(folder: Path, *sources: Source, **more) -> TrainConfig:
    """Towers for tests over real files; a window of 1.6 s keeps decoding quick."""
    fields = TINY.to_dict() | {"frames": 4, "fps": 2.5, "samples": 76_800}
    settings = {"batch_size": 4, "steps": 4, "warmup_steps": 2, "workers": 0, "log_every": 1}
    settings |= {"audio_from_step": 0, "text_from_step": 0, "checkpoint_every": 2}
    data = DataConfig(sources, words(folder), caption_secs=2.0)
    return TrainConfig(
        model=type(TINY)(**fields), data=data, name="tiny-real", device="cpu", **(settings | more)
    )


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
