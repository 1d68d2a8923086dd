"""Evaluation sets of a few files each, in the layouts they are published in."""

import csv
import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from triptych_trainer.config import ModelConfig
from triptych_trainer.world.files import encode, write_wav
from triptych_trainer.world.scene import Scene, draw_scene
from triptych_trainer.world.sound import synthesise

CLASSES = ("BlueThing", "RedThing")
COLOURS = (5, 0)
EACH = 4


def scene(kind: int, number: int) -> Scene:
    """For sounds: the colour is the pitch."""
    shared = {"colour": COLOURS[kind], "shape": 0, "motion": number % 2, "size": 1}
    return draw_scene(np.random.default_rng([kind, number]), shared)


def tinted(kind: int, number: int, count: int, height: int, width: int) -> np.ndarray:
    """u8 [count, height, width, 3]: noise that moves, blue or red as a whole."""
    rng = np.random.default_rng([kind, number])
    still = rng.integers(0, 60, (height // 4, width // 4, 3)).repeat(4, axis=0).repeat(4, axis=1)
    frames = np.stack([np.roll(still, 4 * t, axis=1) for t in range(count)])
    return (frames + np.array([(20, 40, 190), (190, 40, 20)][kind])).astype(np.uint8)


def videos(folder: Path) -> list[list[Path]]:
    """[class][number]"""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for kind in range(2):
        paths = [folder / f"{kind}{n}.mp4" for n in range(EACH)]
        for n, path in enumerate(paths):
            encode(path, tinted(kind, n, 20, 40, 48), None, 10)
        found.append(paths)
    return found


def _placed(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def ucf101(root: Path, made: list[list[Path]]) -> tuple[Path, Path]:
    videos, lists = root / "UCF-101", root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{k + 1} {n}\r\n" for k, n in enumerate(CLASSES)))
    for split in (1, 2):
        train, test = [], []
        for kind, name in enumerate(CLASSES):
            for n, source in enumerate(made[kind]):
                file = f"{name}/v_{name}_g{n + 1:02}_c01.avi"
                _placed(source, videos / file)
                if n == split - 1:
                    test.append(file)
                else:
                    train.append(f"{file} {kind + 1}")
        (lists / f"trainlist{split:02}.txt").write_text("\r\n".join(train) + "\r\n")
        (lists / f"testlist{split:02}.txt").write_text("\r\n".join(test) + "\r\n")
    return videos, lists


def hmdb51(root: Path, made: list[list[Path]]) -> tuple[Path, Path]:
    videos, lists = root / "hmdb51_org", root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for kind, name in enumerate(("blue_thing", "red_thing")):
        lines = []
        for n, source in enumerate(made[kind]):
            file = f"a_{name}_#{n}_f.avi"
            _placed(source, videos / name / file)
            lines.append(f"{file} {(1, 1, 2, 0)[n]} ")
        (lists / f"{name}_test_split1.txt").write_text("\n".join(lines) + "\n")
    return videos, lists


def kinetics(root: Path, made: list[list[Path]]) -> tuple[Path, Path, Path]:
    tables = []
    for part, numbers in (("train", (0, 1, 2)), ("validate", (3,))):
        rows = [["label", "youtube_id", "time_start", "time_end", "split"]]
        for kind, label in enumerate(("a blue thing", "a red thing")):
            for n in numbers:
                rows.append([label, f"-yt{kind}{n}", 10 * n, 10 * n + 10, part])
                stem = f"-yt{kind}{n}_{10 * n:06}_{10 * n + 10:06}"
                _placed(made[kind][n], root / part / label / f"{stem}.mp4")
        tables.append(root / f"{part}.csv")
        with tables[-1].open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return root, tables[0], tables[1]


def msrvtt(root: Path, made: list[list[Path]]) -> tuple[Path, Path]:
    rows = ["key,vid_key,video_id,sentence"]
    for n, source in enumerate([*made[0], *made[1]]):
        _placed(source, root / "videos" / f"video{7010 + n}.mp4")
        rows.append(
            f'ret{n},msr{7010 + n},video{7010 + n},"a {("blue", "red")[n // EACH]} thing, {n}"'
        )
    (root / "msrvtt_test.csv").write_text("\n".join(rows) + "\n")
    return root / "msrvtt_test.csv", root / "videos"


def youcook2(root: Path, made: list[list[Path]]) -> tuple[Path, Path]:
    rows = ["end,start,task,text,video_id"]
    for n in range(4):
        source = made[n // 2][0]
        _placed(source, root / "validation" / str(100 + n // 2) / f"-yc{n // 2}.mp4")
        rows.append(f"{1 + n % 2}.0,{n % 2}.0,{100 + n // 2},the red thing {n},-yc{n // 2}")
    (root / "validation_youcook.csv").write_text("\n".join(rows) + "\n")
    return root / "validation_youcook.csv", root


def esc50(root: Path) -> Path:
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for kind in range(2):
            name = f"{fold}-1000{kind}-A-{kind}.wav"
            write_wav(root / "audio" / name, synthesise(scene(kind, fold), 0.0, 100_000))
            rows.append(f"{name},{fold},{kind},{CLASSES[kind]},True,1000{kind},A")
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root


def audioset(root: Path) -> dict[str, Path]:
    """Half of the clips have a second label, and one file is gone."""
    root.mkdir(parents=True)
    (root / "class_labels_indices.csv").write_text(
        'index,mid,display_name\n0,/m/blue,"Blue, thing"\n1,/m/red,Red\n2,/t/dd1,Other\n'
    )
    found = {"classes": root / "class_labels_indices.csv"}
    for part, count in (("balanced_train", 6), ("eval", 4)):
        lines = [
            "# Segments csv",
            "# num_ytids=1",
            "# YTID, start_seconds, end_seconds, positive_labels",
        ]
        for n in range(count):
            kind = n % 2
            labels = ("/m/blue", "/m/red")[kind] + (",/t/dd1" if n % 4 > 1 else "")
            lines.append(f'{part[0]}id{n}, 30.000, 40.000, "{labels}"')
            if (part, n) != ("balanced_train", 5):
                path = root / part / f"{part[0]}id{n}.wav"
                path.parent.mkdir(exist_ok=True)
                write_wav(path, synthesise(scene(kind, 20 + n), 0.0, 90_000))
        found[part] = root / f"{part}_segments.csv"
        found[part].write_text("\n".join(lines) + "\n")
        found[f"{part}_files"] = root / part
    return found


def jpegs(folder: Path, side: int = 40) -> list[list[Path]]:
    folder.mkdir(parents=True, exist_ok=True)
    found: list[list[Path]] = [[], []]
    for kind in range(2):
        for n in range(EACH):
            frame = tinted(kind, n, 1, side, side)
            path = folder / f"{kind}{n}.jpg"
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo"]
            command += ["-pix_fmt", "rgb24", "-s", f"{side}x{side}", "-i", "-", "-y", str(path)]
            subprocess.run(command, input=frame.tobytes(), check=True)
            found[kind].append(path)
    return found


def voc07(root: Path, made: list[list[Path]]) -> Path:
    folder = root / "VOCdevkit" / "VOC2007"
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for part, numbers in (("trainval", (0, 1)), ("test", (2, 3))):
        names = {f"00{kind}{n}": kind for kind in range(2) for n in numbers}
        for name in names:
            _placed(made[int(name[2])][int(name[3])], folder / "JPEGImages" / f"{name}.jpg")
        for kind, label in enumerate(("blue", "red")):
            marks = [f"{name} {1 if own == kind else -1:2d}" for name, own in names.items()]
            (folder / "ImageSets" / "Main" / f"{label}_{part}.txt").write_text(
                "\n".join(marks) + "\n"
            )
    return root / "VOCdevkit"


def imagenet(root: Path, made: list[list[Path]]) -> Path:
    for part, numbers in (("train", (0, 1, 2)), ("val", (3,))):
        for kind, name in enumerate(("n01440764", "n01443537")):
            for n in numbers:
                _placed(made[kind][n], root / part / name / f"{name}_{n}.JPEG")
    return root


def tiny_model() -> ModelConfig:
    return ModelConfig(
        video_width=0.0625,
        audio_width=0.0625,
        frames=4,
        fps=2.5,
        samples=76_800,
        resize=36,
        crop=32,
        vocab_size=128,
        word_dim=32,
        text_hidden=32,
        fine_dim=32,
        coarse_dim=16,
    )
