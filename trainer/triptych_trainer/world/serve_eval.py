"""The same measurement through the real server: MP4 files in, ranked hits out."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..metrics import ceiling, normalised, recognised
from ..server import Client, running_server, wav_uri
from .evaluate import mean_of_sets, table
from .heldout import HeldOut, attribute_questions, held_out_set, write_file
from .scene import ATTRIBUTES, Scene
from .sound import SAMPLE_RATE_HZ, synthesise

SECS = 3.2


def rank_of(name: str, hits: Sequence[tuple[str, float]], count: int) -> int:
    """Rank (0 = first) of an asset among its hits. Ties and NaN count against it; an asset that
    was not found at all is last."""
    scores = dict(hits)
    if name not in scores:
        return count - 1
    return sum(not score < scores[name] for _, score in hits) - 1


def summary(ranks: Sequence[int]) -> dict[str, float]:
    found = np.asarray(ranks)
    recalls = {f"r@{k}": float((found < k).mean()) for k in (1, 5, 10)}
    return recalls | {"median_rank": float(np.median(found) + 1)}


def write_set(held_out: HeldOut, folder: Path, bars: str = "none") -> list[Path]:
    paths = [folder / f"{i:05}.mp4" for i in range(len(held_out.scenes))]
    for index, (scene, path) in enumerate(zip(held_out.scenes, paths, strict=True)):
        write_file(scene, index, path, SECS, bars)
    return paths


def sound_of(scene: Scene) -> str:
    """The clip's own sound as a query: a file that never went through a lossy codec."""
    return wav_uri(synthesise(scene, 0.0, round(SECS * SAMPLE_RATE_HZ)))


def retrieval(client: Client, held_out: HeldOut, names: list[str]) -> dict[str, dict[str, float]]:
    """Every query of a set, one request each."""
    kinds = {
        "text->video": ("video", [{"text": text} for text in held_out.captions]),
        "audio->video": ("video", [{"audio": sound_of(scene)} for scene in held_out.scenes]),
        "text->audio": ("audio", [{"text": text} for text in held_out.captions]),
    }
    report = {}
    for kind, (target, queries) in kinds.items():
        started = time.monotonic()
        ranks = [
            rank_of(name, client.search(query, target, len(names)), len(names))
            for name, query in zip(names, queries, strict=True)
        ]
        report[kind] = summary(ranks)
        report[kind]["queries_per_sec"] = len(names) / (time.monotonic() - started)
    return report


def attributes(client: Client, held_out: HeldOut, paths: list[Path]) -> dict[str, dict]:
    """Recognition of attributes through served vectors, of the pictures and of the sounds."""
    tracks = {}
    for track in ("video", "audio"):
        first = [client.embed_file(track, path, "coarse")[0] for path in paths]
        tracks[track] = normalised(np.stack(first))
    report = {}
    for name, questions in attribute_questions(held_out).items():
        texts = sorted({text for _, choices, _ in questions for text in choices})
        row_of = {text: row for row, text in enumerate(texts)}
        parts = [client.embed_texts(texts[i : i + 64]) for i in range(0, len(texts), 64)]
        embedded = normalised(np.concatenate(parts))
        truth = [value for _, _, value in questions]
        report[name] = {"chance": 1 / len(ATTRIBUTES[name]), "clips": len(questions)}
        for track, vectors in tracks.items():
            scores = [
                embedded[[row_of[text] for text in choices]] @ vectors[clip]
                for clip, choices, _ in questions
            ]
            report[name][track] = recognised(scores, truth)
    return report


def evaluate_set(binary: Path, model: Path, number: int, clips: int, bars: str = "none") -> dict:
    """One held-out set in a fresh library."""
    held_out = held_out_set(number, clips)
    with tempfile.TemporaryDirectory() as folder:
        media, data = Path(folder) / "media", Path(folder) / "data"
        media.mkdir()
        paths = write_set(held_out, media, bars)
        with running_server(binary, model, data, media) as client:
            started = time.monotonic()
            job = client.index_folder(media)
            indexed_secs = time.monotonic() - started
            report = {
                "set": number,
                "indexing": {
                    "clips": job["clips"],
                    "secs": indexed_secs,
                    "clips_per_sec": job["clips"] / indexed_secs,
                },
                "retrieval": retrieval(client, held_out, [path.name for path in paths]),
                "attributes": attributes(client, held_out, paths),
                "ceiling_of_captions": ceiling(held_out.captions),
            }
    return report


def serve_eval(
    binary: Path, model: Path, sets: int, clips: int, first_set: int = 0, bars: str = "none"
) -> dict:
    record: dict = {"clips_per_set": clips, "served_by": binary.name, "bars": bars, "sets": []}
    for number in range(first_set, first_set + sets):
        record["sets"].append(evaluate_set(binary, model, number, clips, bars))
        print(f"held-out set {number}\n{table(record['sets'][-1])}", flush=True)
    record["mean"] = mean_of_sets(record["sets"])
    return record
