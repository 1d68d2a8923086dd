#!/usr/bin/env python3
"""Finds the null distribution that places the threshold of `no_match` where labels would.

Straight from renderer and towers, without the server: libraries of the small world that lack
12 of the 48 pairs of shape and colour, queries about these and what is there. Prints how well
the best cosine tells them apart, in all and by the word for the shape, and where several
distributions made without labels put the threshold, next to one that refuses 90 % of the absent.

    .venv/bin/python scripts/confidence_study.py
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
from triptych_trainer.config import PRESETS
from triptych_trainer.metrics import normalised
from triptych_trainer.world.captions import COLOUR_WORDS, MOTION_PHRASES, SHAPE_WORDS
from triptych_trainer.world.dataset import plain_clip
from triptych_trainer.world.heldout import held_out_set

FILMS, LEFT_OUT, QUERIES, BANK = 300, 12, 200, 96
DESCRIBES = 0.025


class Towers:
    def __init__(self, bundle: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.video = onnxruntime.InferenceSession(str(bundle / "video.onnx"), options)
        self.text = onnxruntime.InferenceSession(str(bundle / "text.onnx"), options)
        self.vocabulary = json.loads((bundle / "tokenizer.json").read_text())["model"]["vocab"]
        self.words = [word for word, index in self.vocabulary.items() if index > 1]

    def texts(self, texts: list[str]) -> np.ndarray:
        """Unit vectors f32 [N, coarse]."""
        rows = np.zeros((len(texts), 16), dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            known = [self.vocabulary.get(w) for w in re.findall(r"[\w']+", text.lower())]
            ids = [index for index in known if index is not None][:16]
            row[: len(ids)] = ids
        return normalised(self.text.run(["coarse"], {"token_ids": rows})[0])

    def pictures(self, scenes: list) -> np.ndarray:
        model = PRESETS["small-world"].model
        frames = (plain_clip(scene, model).frames[None] for scene in scenes)
        return normalised(
            np.concatenate([self.video.run(["coarse"], {"frames": f})[0] for f in frames])
        )

    def describe(self, clip: np.ndarray, length: int) -> str:
        said: list[str] = []
        for _ in range(length):
            longer = [" ".join([*said, word]) for word in self.words if word not in said]
            said = longer[int((self.texts(longer) @ clip).argmax())].split()
        return " ".join(said)


def above(present: np.ndarray, absent: np.ndarray) -> float:
    """Share of pairs in which the present one scores more."""
    return float(((present[:, None] > absent) + 0.5 * (present[:, None] == absent)).mean())


def phrase(labels: dict, moving: bool, rng: np.random.Generator) -> tuple[str, str]:
    shape = str(rng.choice(SHAPE_WORDS[labels["shape"]]))
    text = f"a {rng.choice(COLOUR_WORDS[labels['colour']])} {shape}"
    return (f"{text} {rng.choice(MOTION_PHRASES[labels['motion']])}" if moving else text), shape


def distributions(towers: Towers, clips: np.ndarray, length: int, rng: np.random.Generator) -> dict:
    """Best scores of queries about something else, by how such queries are made."""
    chosen = rng.choice(len(clips), BANK, replace=False)
    said = [towers.describe(clips[i], length) for i in chosen]
    scores = towers.texts(said) @ clips.T
    most = scores.max(0)
    left = [np.where(row < most - DESCRIBES, row, -1.0).max() for row in scores]
    exchanged = []
    for text in said:
        words, other = text.split(), said[rng.integers(len(said))].split()
        words[rng.integers(length)] = other[rng.integers(length)]
        exchanged.append(" ".join(words))
    at_random = [" ".join(rng.choice(towers.words, length, replace=False)) for _ in range(500)]
    return {
        "descriptions, described clips put aside": np.array(left),
        "descriptions, one word exchanged": (towers.texts(exchanged) @ clips.T).max(1),
        "words at random": (towers.texts(at_random) @ clips.T).max(1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/small-world"))
    parser.add_argument("--libraries", type=int, default=4)
    args = parser.parse_args()
    towers = Towers(args.model)
    scenes = held_out_set(7, 800).scenes
    vectors, labels = towers.pictures(scenes), [scene.labels() for scene in scenes]
    found, by_shape = defaultdict(list), defaultdict(lambda: ([], []))
    for seed in range(args.libraries):
        rng = np.random.default_rng(seed)
        pairs = [(shape, colour) for shape in SHAPE_WORDS for colour in COLOUR_WORDS]
        absent = [pairs[i] for i in rng.permutation(len(pairs))[:LEFT_OUT]]
        kept = [i for i, s in enumerate(labels) if (s["shape"], s["colour"]) not in absent]
        library = rng.permutation(kept)[:FILMS]
        clips = vectors[library]
        for moving, length in ((False, 2), (True, 3)):
            there = [phrase(labels[i], moving, rng) for i in rng.choice(library, QUERIES)]
            gone = []
            for n in rng.choice(LEFT_OUT, QUERIES):
                motion = str(rng.choice(list(MOTION_PHRASES)))
                scene = {"shape": absent[n][0], "colour": absent[n][1], "motion": motion}
                gone.append(phrase(scene, moving, rng))
            here, away = (
                (towers.texts([text for text, _ in asked]) @ clips.T).max(1)
                for asked in (there, gone)
            )
            kind = "with motion" if moving else "shape and colour"
            found[kind, "present above absent"].append((above(here, away),))
            for side, (asked, best) in enumerate(((there, here), (gone, away))):
                for (_, shape), score in zip(asked, best, strict=True):
                    by_shape[shape][side].append(score)
            rules = {"labels": away} | distributions(towers, clips, length, rng)
            for rule, null in rules.items():
                at = float(np.quantile(null, 0.9))
                found[kind, rule].append((at, float((away < at).mean()), float((here < at).mean())))
    for (kind, rule), rows in found.items():
        means = "  ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
        print(f"{kind}, {rule}: {means}")
    print("(threshold, absent refused, present refused)")
    for shape, (here, away) in by_shape.items():
        print(f"{shape}: present above absent {above(np.array(here), np.array(away)):.3f}")


if __name__ == "__main__":
    main()
