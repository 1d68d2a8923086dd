"""Zero-shot retrieval and attribute recognition on held-out worlds, with controls."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from .config import TrainConfig
from .heldout import HeldOut, attribute_questions, held_out_set, tensors
from .metrics import ceiling, normalised, recognised, retrieval
from .models.mmv import Mmv
from .tokenizer import build_tokenizer, encode
from .train import build_model
from .world import captions
from .world.scene import ATTRIBUTES

Vectors = dict[str, np.ndarray]
CHUNK = 50
# (query, target, space): the finest space that both are members of.
DIRECTIONS = (
    ("text", "video", "coarse"),
    ("video", "text", "coarse"),
    ("audio", "video", "fine"),
    ("video", "audio", "fine"),
    ("text", "audio", "coarse"),
    ("audio", "text", "coarse"),
)


@torch.no_grad()
def embed_clips(model: Mmv, frames: np.ndarray, pcm: np.ndarray) -> Vectors:
    """Unit vectors f64 by `<modality>.<space>`."""
    found: dict[str, list[np.ndarray]] = {}
    for i in range(0, len(frames), CHUNK):
        video = model.embed_video(torch.from_numpy(frames[i : i + CHUNK]))
        audio = model.embed_audio(torch.from_numpy(pcm[i : i + CHUNK]))
        for name, out in (("video", video), ("audio", audio)):
            for space, vectors in out.items():
                found.setdefault(f"{name}.{space}", []).append(vectors.numpy())
    return {key: normalised(np.concatenate(parts)) for key, parts in found.items()}


@torch.no_grad()
def embed_texts(model: Mmv, texts: list[str]) -> np.ndarray:
    """Unit vectors f64 [N, coarse]."""
    tokenizer = build_tokenizer(captions.vocabulary())
    ids = np.stack([encode(tokenizer, text, model.cfg.max_words) for text in texts])
    return normalised(model.embed_text(torch.from_numpy(ids))["coarse"].numpy())


def all_directions(vectors: Vectors) -> dict[str, dict[str, float]]:
    return {
        f"{query}->{target}": retrieval(
            vectors[f"{query}.{space}"] @ vectors[f"{target}.{space}"].T
        )
        for query, target, space in DIRECTIONS
    }


def attributes(model: Mmv, held_out: HeldOut, vectors: Vectors) -> dict[str, dict[str, float]]:
    """How often the true value of an attribute wins among captions that differ in it alone."""
    report = {}
    for name, questions in attribute_questions(held_out).items():
        texts = sorted({text for _, choices, _ in questions for text in choices})
        row_of = {text: row for row, text in enumerate(texts)}
        embedded = embed_texts(model, texts)
        truth = [value for _, _, value in questions]
        report[name] = {"chance": 1 / len(ATTRIBUTES[name]), "clips": len(questions)}
        for track in ("video", "audio"):
            scores = [
                embedded[[row_of[text] for text in choices]] @ vectors[f"{track}.coarse"][clip]
                for clip, choices, _ in questions
            ]
            report[name][track] = recognised(scores, truth)
    return report


def evaluate(
    cfg: TrainConfig, model: Mmv, sets: int, clips: int, *, through_files: bool, controls: bool
) -> dict:
    """The record that goes into the manifest. The controls use the first set."""
    record: dict = {
        "protocol": "zero-shot; one caption per clip, only its own clip is right; ties and NaN "
        "count against the model",
        "clips_per_set": clips,
        "through_files": through_files,
        "sets": [],
    }
    for number in range(sets):
        held_out = held_out_set(number, clips)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) if through_files else None
            frames, pcm = tensors(held_out, cfg.model, place)
        vectors = embed_clips(model, frames, pcm)
        vectors["text.coarse"] = embed_texts(model, held_out.captions)
        one = {"set": number, "retrieval": all_directions(vectors)}
        one["attributes"] = attributes(model, held_out, vectors)
        one["ceiling_of_captions"] = ceiling(held_out.captions)
        record["sets"].append(one)
        print(table(one), flush=True)
        if controls and number == 0:
            record["controls"] = run_controls(cfg, held_out, vectors, frames, pcm)
    record["mean"] = mean_of_sets(record["sets"])
    return record


def run_controls(
    cfg: TrainConfig, held_out: HeldOut, vectors: Vectors, frames: np.ndarray, pcm: np.ndarray
) -> dict:
    """The same measurement where nothing can be known: it must give chance."""
    order = np.random.default_rng(0).permutation(len(frames))
    shuffled = vectors | {k: v[order] for k, v in vectors.items() if k.startswith("video.")}
    untrained_model = build_model(cfg).eval()
    untrained = embed_clips(untrained_model, frames, pcm)
    untrained["text.coarse"] = embed_texts(untrained_model, held_out.captions)
    return {
        "chance_r@10": 10 / len(frames),
        "shuffled_pairs": all_directions(shuffled),
        "untrained_model": all_directions(untrained),
    }


def mean_of_sets(sets: list[dict]) -> dict:
    """Means over the sets of every number, by the same keys."""

    def mean(values: list) -> dict | float:
        if isinstance(values[0], dict):
            return {key: mean([value[key] for value in values]) for key in values[0]}
        return round(float(np.mean(values)), 4)

    keys = ("retrieval", "attributes", "ceiling_of_captions")
    return {key: mean([one[key] for one in sets]) for key in keys}


def table(one: dict) -> str:
    """One set for the terminal."""
    lines = [f"{'':16}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'median':>8}"]
    for name, row in one["retrieval"].items():
        recalls = "".join(f"{row[f'r@{k}']:7.3f}" for k in (1, 5, 10))
        lines.append(f"{name:16}{recalls}{row['median_rank']:8.1f}")
    row = one["ceiling_of_captions"]
    lines.append(f"{'ceiling':16}" + "".join(f"{row[f'r@{k}']:7.3f}" for k in (1, 5, 10)))
    lines.append(f"{'':16}{'video':>7}{'audio':>7}{'chance':>7}")
    for name, row in one["attributes"].items():
        lines.append(f"{name:16}{row['video']:7.3f}{row['audio']:7.3f}{row['chance']:7.3f}")
    return "\n".join(lines)
