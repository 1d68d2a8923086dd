#!/usr/bin/env python3
"""Measures how often the moment of a search overlaps the wanted scene.

Films of several scenes of the small world, one after the other, cut where no window begins. Each
scene is searched for by its caption within its film, once with adjacent windows and once with
windows that overlap by half. A moment is right if its IoU with the scene is 0.7 or more. Also
printed: the same among answers whose best window lies in the scene, so that what the model mistakes
is told apart from where moments end. Run from the repository root, the trainer installed and the
server built:

    .venv/bin/python scripts/moment_overlap.py --binary target/release/triptych
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from no_match_curve import wait_until_calibrated
from triptych_trainer.server import Client, running_server
from triptych_trainer.world.captions import evaluation_caption
from triptych_trainer.world.files import encode
from triptych_trainer.world.heldout import SIZES
from triptych_trainer.world.render import render
from triptych_trainer.world.scene import Scene, scene_of
from triptych_trainer.world.sound import SAMPLE_RATE_HZ, synthesise

SCENES_SEED = 900
WINDOW_SECS, FPS = 3.2, 25
ENOUGH = 0.7

Film = list[tuple[Scene, float, float]]


def draw_film(number: int, args: argparse.Namespace, rng: np.random.Generator) -> Film:
    """Scenes with their first second and the one after their last; no two look alike."""
    film, index, at, seen = [], 1000 * number, 0.0, set()
    while len(film) < args.scenes:
        scene = scene_of(SCENES_SEED, index, held_out=True)
        index += 1
        if args.distinct and (scene.shape in seen or scene.colour + 100 in seen):
            continue
        seen |= {scene.shape, scene.colour + 100}
        secs = round(rng.uniform(args.least_secs, args.most_secs) * FPS) / FPS
        film.append((scene, at, at + secs))
        at += secs
    return film


def write_film(film: Film, number: int, path: Path) -> None:
    width, height = SIZES[number % len(SIZES)]
    frames, pcm = [], []
    for scene, start, end in film:
        frames.append(render(scene, np.arange(round((end - start) * FPS)) / FPS, height, width))
        pcm.append(synthesise(scene, 0.0, round((end - start) * SAMPLE_RATE_HZ)))
    encode(path, np.concatenate(frames), np.concatenate(pcm), FPS)


def iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    common = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return common / (a[1] - a[0] + b[1] - b[0] - common)


def ask(client: Client, films: list[Film], targets: list[str], dump: Path | None) -> dict:
    rows, timelines = [], []
    ids = {a["name"]: a["id"] for a in client.call("GET", "/v1/assets?limit=1000")["data"]}
    for number, film in enumerate(films):
        asset = ids[f"{number:05}.mp4"]
        for scene, start, end in film:
            caption = evaluation_caption(scene)
            body = {"query": {"text": caption}, "targets": targets, "group_by": "moment"}
            body |= {"limit": 1, "filter": {"asset_ids": [asset]}}
            hit = client.call("POST", "/v1/search", body)["data"][0]
            overlap = iou((hit["start_secs"], hit["end_secs"]), (start, end))
            rows.append((overlap, start <= hit["peak_secs"] <= end))
            if dump is not None:
                body = {"query": {"text": caption}, "targets": targets}
                told = client.call("POST", f"/v1/assets/{asset}/timeline", body)
                timelines.append({"start": start, "end": end, "timeline": told})
    if dump is not None:
        dump.write_text(json.dumps(timelines))
    overlaps, there = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    return {
        "asked": len(rows),
        "right": float((overlaps >= ENOUGH).mean()),
        "peak_in_scene": float(there.mean()),
        "right_where_peak_in_scene": float((overlaps[there] >= ENOUGH).mean()),
        "median_iou": float(np.median(overlaps)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=Path("target/release/triptych"))
    parser.add_argument("--model", type=Path, default=Path("models/small-world"))
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--scenes", type=int, default=5, help="of each film")
    parser.add_argument("--least-secs", type=float, default=4.0, help="of a scene")
    parser.add_argument("--most-secs", type=float, default=10.0)
    parser.add_argument("--strides", type=float, nargs="+", default=[WINDOW_SECS, WINDOW_SECS / 2])
    parser.add_argument("--targets", nargs="+", default=["video"])
    parser.add_argument("--alike", dest="distinct", action="store_false")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dump", type=Path, help="folder for the timelines, to try rules on")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    films = [draw_film(args.films * args.seed + n, args, rng) for n in range(args.films)]
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder) / "media"
        media.mkdir()
        for number, film in enumerate(films):
            write_film(film, number, media / f"{number:05}.mp4")
        for stride in args.strides:
            os.environ["TRIPTYCH_STRIDE_SECS"] = str(stride)
            data = Path(folder) / f"data-{stride}"
            with running_server(args.binary, args.model, data, media) as client:
                client.index_folder(media)
                wait_until_calibrated(client)
                dump = args.dump and args.dump / f"timelines-{stride}.json"
                print(
                    json.dumps({"stride_secs": stride} | ask(client, films, args.targets, dump)),
                    flush=True,
                )


if __name__ == "__main__":
    main()
