#!/usr/bin/env python3
"""Measures how well `no_match` distinguishes queries about present things from queries about absent
ones.

A library of the small world's films from which some pairs of shape and colour are left out; queries
about those pairs, and about pairs that are there, as people would put them (synonyms, half of them
with the motion). Prints, for the shipped threshold and along the curve, the share of each that is
answered `no_match`. Run from the repository root, the trainer installed and the server built:

    .venv/bin/python scripts/no_match_curve.py --binary target/release/triptych
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from triptych_trainer.server import Client, running_server
from triptych_trainer.world.captions import COLOUR_WORDS, MOTION_PHRASES, SHAPE_WORDS
from triptych_trainer.world.heldout import write_file
from triptych_trainer.world.scene import Scene, scene_of

# Library n draws its scenes from the seed that is n above the first one.
SCENES_SEED = 700
SECS = 3.2
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)


def split(
    films: int, left_out: int, seed: int, rng: np.random.Generator
) -> tuple[list[Scene], list]:
    """Scenes of the library, and the pairs of shape and colour that none of them has."""
    pairs = [(shape, colour) for shape in SHAPE_WORDS for colour in COLOUR_WORDS]
    absent = [pairs[i] for i in rng.permutation(len(pairs))[:left_out]]
    scenes, index = [], 0
    while len(scenes) < films:
        scene = scene_of(seed, index, held_out=True)
        index += 1
        labels = scene.labels()
        if (labels["shape"], labels["colour"]) not in absent:
            scenes.append(scene)
    return scenes, absent


def phrase(shape: str, colour: str, motion: str, rng: np.random.Generator) -> str:
    """Every other query also mentions the motion."""
    words = f"a {rng.choice(COLOUR_WORDS[colour])} {rng.choice(SHAPE_WORDS[shape])}"
    return f"{words} {rng.choice(MOTION_PHRASES[motion])}" if rng.uniform() < 0.5 else words


def queries(scenes: list[Scene], absent: list, count: int, rng: np.random.Generator) -> tuple:
    present_texts = []
    for scene in rng.choice(len(scenes), count):
        labels = scenes[scene].labels()
        present_texts.append(phrase(labels["shape"], labels["colour"], labels["motion"], rng))
    absent_texts = []
    for pair in rng.choice(len(absent), count):
        shape, colour = absent[pair]
        absent_texts.append(phrase(shape, colour, str(rng.choice(list(MOTION_PHRASES))), rng))
    return present_texts, absent_texts


def wait_until_calibrated(client: Client, patience_secs: float = 600.0) -> None:
    deadline = time.monotonic() + patience_secs
    while True:
        stats = client.call("GET", "/v1/stats")
        if stats["calibrated_clips"] == stats["clips"]:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"the scores have no meaning after {patience_secs:.0f} s: {stats}")
        time.sleep(0.5)


def ask(client: Client, texts: list[str], target: str) -> tuple[np.ndarray, np.ndarray]:
    """(confidence of the best hit, whether the answer was `no_match`) of each query."""
    confidences, refused = [], []
    for text in texts:
        body = {"query": {"text": text}, "targets": [target], "limit": 1}
        answer = client.call("POST", "/v1/search", body)
        confidences.append(answer["data"][0]["confidence"])
        refused.append(answer["no_match"])
    return np.array(confidences), np.array(refused)


def run_one(args: argparse.Namespace, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    scenes, absent = split(args.films, args.left_out, args.scenes_seed + seed, rng)
    present_texts, absent_texts = queries(scenes, absent, args.queries, rng)
    report: dict = {"seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder) / "media"
        media.mkdir()
        for index, scene in enumerate(scenes):
            write_file(scene, index, media / f"{index:05}.mp4", SECS)
        with running_server(args.binary, args.model, Path(folder) / "data", media) as client:
            client.index_folder(media)
            wait_until_calibrated(client)
            for target in ("video", "audio"):
                there, there_refused = ask(client, present_texts, target)
                gone, gone_refused = ask(client, absent_texts, target)
                curve = {
                    str(t): [float((gone < t).mean()), float((there < t).mean())]
                    for t in THRESHOLDS
                }
                report[target] = {
                    "absent_no_match": float(gone_refused.mean()),
                    "present_no_match": float(there_refused.mean()),
                    "present_above_absent": float(
                        ((there[:, None] > gone) + 0.5 * (there[:, None] == gone)).mean()
                    ),
                    "curve": curve,
                }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=Path("target/release/triptych"))
    parser.add_argument("--model", type=Path, default=Path("models/small-world"))
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--left-out", type=int, default=12, help="of 48 pairs of shape and colour")
    parser.add_argument("--queries", type=int, default=200, help="of each kind")
    parser.add_argument("--libraries", type=int, default=1)
    parser.add_argument("--scenes-seed", type=int, default=SCENES_SEED, help="of the first library")
    args = parser.parse_args()
    for seed in range(args.libraries):
        report = run_one(args, seed)
        print(json.dumps(report), flush=True)
        for target in ("video", "audio"):
            found = report[target]
            print(
                f"text to {target}: no_match for {found['absent_no_match']:.3f} of the absent, "
                f"{found['present_no_match']:.3f} of the present; a present one is surer than an "
                f"absent one in {found['present_above_absent']:.3f}"
            )
            for threshold, (gone, there) in found["curve"].items():
                print(f"  threshold {threshold:>4}: absent {gone:.3f}  present {there:.3f}")


if __name__ == "__main__":
    main()
