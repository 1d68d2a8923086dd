#!/usr/bin/env python3
"""Checks the live recall gauge on a library that is large enough for a graph.

Films of the small world, without sound, cut into windows every 0.4 s; texts as people would put
them. Each is asked as usual and once more with everything compared; what the two have in common
is the recall that a user gets. Beside it stands what `triptych_index_recall_at_10` said of the same
queries. Run from the repository root, the trainer installed and the server built:

    .venv/bin/python scripts/recall_gauge.py --binary target/release/triptych
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from triptych_trainer.server import Client, running_server
from triptych_trainer.world.captions import describe
from triptych_trainer.world.files import write_video
from triptych_trainer.world.scene import scene_of

SCENES_SEED = 800
SCENES_PER_FILM, FPS = 40, 5
SIZE = (64, 64)
STRIDE_SECS = 0.4
WAITING = 16


def write_films(folder: Path, films: int) -> None:
    for film in range(films):
        numbers = range(film * SCENES_PER_FILM, (film + 1) * SCENES_PER_FILM)
        scenes = [scene_of(SCENES_SEED, n, held_out=True) for n in numbers]
        write_video(folder / f"{film:04}.mp4", scenes, size=SIZE, fps=FPS, sound=False)


def clips_found(client: Client, text: str, params: dict) -> set[tuple[str, float]]:
    """The ten best clips."""
    body = {"query": {"text": text}, "targets": ["video"], "group_by": "clip", "limit": 10}
    hits = client.call("POST", "/v1/search", body | {"params": params})["data"]
    return {(hit["asset_id"], hit["start_secs"]) for hit in hits}


def gauge(client: Client) -> dict:
    """The server's gauge for coarse video."""
    indexes = client.call("GET", "/v1/stats")["indexes"]
    return next(i for i in indexes if (i["track"], i["space"]) == ("video", "coarse"))["recall"]


def wait_for_graph(client: Client, patience_secs: float = 600.0) -> None:
    """It is built in the background, once there are vectors enough."""
    deadline = time.monotonic() + patience_secs
    while gauge(client)["engine"] != "graph":
        if time.monotonic() > deadline:
            raise SystemExit(f"no graph after {patience_secs:.0f} s")
        time.sleep(1.0)


def asked_slowly(client: Client, texts: list[str], params: dict) -> list[set[tuple[str, float]]]:
    """As many at a time as may wait to be answered once more, then a quiet moment."""
    found = []
    for first in range(0, len(texts), WAITING):
        found += [clips_found(client, text, params) for text in texts[first : first + WAITING]]
        time.sleep(2.0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=Path("target/release/triptych"))
    parser.add_argument("--model", type=Path, default=Path("models/small-world"))
    parser.add_argument("--films", type=int, default=84, help="of 313 clips each")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--ef", type=int, help="breadth of the graph search; absent: the default")
    args = parser.parse_args()
    params = {} if args.ef is None else {"ef": args.ef}
    rng = np.random.default_rng(0)
    scenes = [scene_of(SCENES_SEED, 10**6 + n, held_out=True) for n in range(args.queries)]
    texts = [describe(scene, rng) for scene in scenes]
    options = ("--stride-secs", str(STRIDE_SECS), "--recall-probe-share", "1")
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder) / "media"
        media.mkdir()
        write_films(media, args.films)
        with running_server(
            args.binary, args.model, Path(folder) / "data", media, *options
        ) as client:
            client.index_folder(media)
            wait_for_graph(client)
            as_usual = asked_slowly(client, texts, params)
            said = gauge(client)
            exactly = [clips_found(client, text, {"exact": True}) for text in texts]
            clips = client.call("GET", "/v1/stats")["clips"]
    shares = [len(a & b) / 10 for a, b in zip(as_usual, exactly, strict=True)]
    print(
        f"{clips} clips, {len(texts)} texts: recall@10 {np.mean(shares):.4f} as a user sees it; "
        f"the gauge says {said}"
    )


if __name__ == "__main__":
    main()
