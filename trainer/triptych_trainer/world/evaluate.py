"""Zero-shot retrieval and attribute recognition on held-out worlds, with controls."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from ..config import TrainConfig
from ..metrics import ceiling, normalised, recognised, retrieval
from ..models.heads import shared_space
from ..models.mmv import Mmv
from ..tokenizer import build_tokenizer, encode
from ..train import build_model
from . import captions
from .heldout import HeldOut, attribute_questions, held_out_set, tensors
from .scene import ATTRIBUTES

Vectors = dict[str, np.ndarray]
CHUNK = 50
# (query, target), compared in the finest space that both are members of, if there is one.
DIRECTIONS = (
    ("text", "video"),
    ("video", "text"),
    ("audio", "video"),
    ("video", "audio"),
    ("text", "audio"),
    ("audio", "text"),
)


@torch.no_grad()
def embed_clips(model: Mmv, frames: np.ndarray, pcm: np.ndarray) -> Vectors:
    """Unit vectors f64 by `<modality>.<space>`."""
    found: dict[str, list[np.ndarray]] = {}
    for i in range(0, len(frames), CHUNK):
        video = model.embed_video(torch.from_numpy(frames[i : i + CHUNK]))
        made = {"video": video}
        if "audio" in model.modalities:
            made["audio"] = model.embed_audio(torch.from_numpy(pcm[i : i + CHUNK]))
        for name, out in made.items():
            for space, vectors in out.items():
                found.setdefault(f"{name}.{space}", []).append(vectors.numpy())
    return {key: normalised(np.concatenate(parts)) for key, parts in found.items()}


@torch.no_grad()
def embed_texts(model: Mmv, texts: list[str]) -> Vectors:
    """Unit vectors f64 by `text.<space>`; none for a model without text."""
    if "text" not in model.modalities:
        return {}
    tokenizer = build_tokenizer(captions.vocabulary())
    ids = np.stack([encode(tokenizer, text, model.cfg.max_words) for text in texts])
    out = model.embed_text(torch.from_numpy(ids))
    return {f"text.{space}": normalised(vectors.numpy()) for space, vectors in out.items()}


def all_directions(vectors: Vectors, graph: str) -> dict[str, dict[str, float]]:
    """Every pair that the head graph lets compare."""
    report = {}
    for query, target in DIRECTIONS:
        if space := shared_space(graph, query, target):
            scores = vectors[f"{query}.{space}"] @ vectors[f"{target}.{space}"].T
            report[f"{query}->{target}"] = retrieval(scores)
    return report


def attributes(model: Mmv, held_out: HeldOut, vectors: Vectors) -> dict[str, dict[str, float]]:
    """How often the true value of an attribute wins among captions that differ in it alone."""
    report: dict = {}
    graph = model.cfg.spaces
    spaces = {track: shared_space(graph, "text", track) for track in ("video", "audio")}
    if not any(spaces.values()):
        return report
    for name, questions in attribute_questions(held_out).items():
        texts = sorted({text for _, choices, _ in questions for text in choices})
        row_of = {text: row for row, text in enumerate(texts)}
        embedded = embed_texts(model, texts)
        truth = [value for _, _, value in questions]
        report[name] = {"chance": 1 / len(ATTRIBUTES[name]), "clips": len(questions)}
        for track, space in spaces.items():
            if space is None:
                continue
            scores = [
                embedded[f"text.{space}"][[row_of[text] for text in choices]]
                @ vectors[f"{track}.{space}"][clip]
                for clip, choices, _ in questions
            ]
            report[name][track] = recognised(scores, truth)
    return report


def evaluate(
    cfg: TrainConfig, model: Mmv, sets: int, clips: int, *, through_files: bool, controls: bool
) -> dict:
    """The record that goes into the manifest. The controls use the first set."""
    by_files = " --through-files" if through_files else ""
    record: dict = {
        "command": f"triptych-trainer evaluate --sets {sets} --clips {clips}{by_files}",
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
        vectors |= embed_texts(model, held_out.captions)
        one = {"set": number, "retrieval": all_directions(vectors, cfg.model.spaces)}
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
    rng = np.random.default_rng(0)
    orders = {name: rng.permutation(len(frames)) for name in ("video", "audio")}
    shuffled = {k: v[orders[k.split(".")[0]]] for k, v in vectors.items() if k != "text.coarse"}
    shuffled["text.coarse"] = vectors["text.coarse"]
    untrained_model = build_model(cfg).eval()
    untrained = embed_clips(untrained_model, frames, pcm)
    untrained |= embed_texts(untrained_model, held_out.captions)
    return {
        "chance_r@10": 10 / len(frames),
        "shuffled_pairs": all_directions(shuffled, cfg.model.spaces),
        "untrained_model": all_directions(untrained, cfg.model.spaces),
    }


def mean_of_sets(sets: list[dict]) -> dict:
    """Means over the sets of every number, by the same keys."""

    def mean(values: list) -> dict | float:
        if isinstance(values[0], dict):
            return {key: mean([value[key] for value in values]) for key in values[0]}
        return round(float(np.mean(values)), 4)

    keys = ("retrieval", "attributes", "ceiling_of_captions")
    return {key: mean([one[key] for one in sets]) for key in keys}


def shown(row: dict, track: str) -> str:
    return f"{row[track]:7.3f}" if track in row else f"{'-':>7}"


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
        lines.append(f"{name:16}{shown(row, 'video')}{shown(row, 'audio')}{row['chance']:7.3f}")
    return "\n".join(lines)
