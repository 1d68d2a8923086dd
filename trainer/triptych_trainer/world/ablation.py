"""Which modalities and which spaces, as the paper's table 1 asks: every variant trained alike on
the small world, several seeds each, measured by linear classifiers on frozen features and by
zero-shot retrieval."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..config import PRESETS, TrainConfig
from ..metrics import normalised
from ..models.audio_frontend import LogMel
from ..models.mmv import Mmv
from ..protocols.classify import svm_scores, top
from ..train import load_checkpoint, train
from .dataset import plain_clip
from .evaluate import Vectors, all_directions, embed_texts
from .heldout import HeldOut, held_out_set
from .scene import ATTRIBUTES

VARIANTS = ("vt", "va", "shared", "disjoint", "fac")
TEST_SETS = (0, 1)
LEARN_SET = 7
SVM_C = 1e-3
"""Of the standardised features; the same for all."""
PROBES = (("video", "motion"), ("video", "shape"), ("audio", "shape"), ("audio", "motion"))
PAIRS = ("text->video", "audio->video", "text->audio")
CHUNK = 50

PAPER = {
    "vt": {"UCF101": 82.7, "HMDB51": 55.9, "YouCook2": 33.6, "MSR-VTT": 27.5},
    "va": {"UCF101": 75.5, "HMDB51": 51.6, "ESC-50": 79.0},
    "vat": {"UCF101": 84.7, "HMDB51": 57.3, "YouCook2": 32.2, "MSR-VTT": 28.6, "ESC-50": 78.7},
    "shared": {"UCF101": 84.7, "HMDB51": 60.2, "YouCook2": 20.8, "MSR-VTT": 22.4, "ESC-50": 88.5},
    "disjoint": {"UCF101": 85.1, "HMDB51": 59.3, "YouCook2": 25.0, "MSR-VTT": 22.5, "ESC-50": 87.0},
    "fac": {"UCF101": 86.2, "HMDB51": 62.5, "YouCook2": 23.8, "MSR-VTT": 23.5, "ESC-50": 88.0},
}
"""Table 1 (MMV specification, section 9): `vt`, `va` and `vat` (FAC) on HowTo100M, the three graphs
on HowTo100M and AudioSet. Top-1 of linear classifiers; R@10 for YouCook2 and MSR-VTT."""


@dataclass(frozen=True)
class Material:
    """What the towers take of one held-out set, made once for all variants."""

    held_out: HeldOut
    frames: np.ndarray
    """u8 [N, T, crop, crop, 3]"""
    logmel: torch.Tensor
    """f32 [N, T', 80, 1]"""


def material(number: int, clips: int, cfg: TrainConfig) -> Material:
    held_out, log_mel = held_out_set(number, clips), LogMel(cfg.model.audio_log)
    frames, mels = [], []
    for first in range(0, clips, CHUNK):
        made = [plain_clip(scene, cfg.model) for scene in held_out.scenes[first : first + CHUNK]]
        frames += [clip.frames for clip in made]
        with torch.no_grad():
            mels.append(log_mel(torch.from_numpy(np.stack([clip.pcm for clip in made]))))
    return Material(held_out, np.stack(frames), torch.cat(mels))


@torch.no_grad()
def embedded(model: Mmv, material: Material) -> tuple[Vectors, Vectors]:
    """(backbone features by modality, unit vectors by `<modality>.<space>`)."""
    features: dict[str, list[np.ndarray]] = {}
    spaces: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(material.frames), CHUNK):
        rows = slice(first, first + CHUNK)
        frames = torch.from_numpy(material.frames[rows]).permute(0, 4, 1, 2, 3).float() / 255.0
        found = {"video": model.video_backbone(frames)}
        if "audio" in model.modalities:
            found["audio"] = model.audio_backbone(material.logmel[rows])
        for name, feature in found.items():
            features.setdefault(name, []).append(feature.numpy())
            for space, vectors in getattr(model.heads, name)(feature).items():
                spaces.setdefault(f"{name}.{space}", []).append(vectors.numpy())
    unit = {key: normalised(np.concatenate(parts)) for key, parts in spaces.items()}
    unit |= embed_texts(model, material.held_out.captions)
    return {key: np.concatenate(parts) for key, parts in features.items()}, unit


def measure(model: Mmv, learn: Material, tests: Sequence[Material]) -> dict[str, float]:
    """Top-1 of linear SVMs on frozen features, and R@10 over each test set."""
    known, _ = embedded(model, learn)
    asked = [embedded(model, test) for test in tests]
    found: dict[str, float] = {}
    for track, attribute in PROBES:
        if track not in known:
            continue
        labels = np.array([getattr(scene, attribute) for scene in learn.held_out.scenes])
        truth = np.array([getattr(s, attribute) for test in tests for s in test.held_out.scenes])
        test = np.concatenate([features[track] for features, _ in asked])
        scores = svm_scores(known[track][:, None], labels, test[:, None], SVM_C)
        found[f"{track} {attribute}"] = top(scores, truth)
    each = [all_directions(vectors, model.cfg.spaces) for _, vectors in asked]
    for pair in PAIRS:
        if all(pair in one for one in each):
            found[pair] = float(np.mean([one[pair]["r@10"] for one in each]))
    return found


def variant(name: str, seed: int, steps: int | None) -> TrainConfig:
    cfg = replace(PRESETS[f"ablation-{name}"], seed=seed)
    return cfg if steps is None else replace(cfg, steps=steps)


def run(out: Path, seeds: Sequence[int], steps: int | None, clips: int, learn_clips: int) -> dict:
    """Trains and measures what `out` does not have yet; the record of all of it."""
    first, tests, learn = variant("fac", 0, steps), None, None
    runs: dict[str, dict[str, dict[str, float]]] = {}
    # Seed by seed, so that an interrupted run has whole rows to compare.
    for seed in seeds:
        for name in VARIANTS:
            folder, cfg = out / f"{name}-{seed}", variant(name, seed, steps)
            kept = out / f"{name}-{seed}.json"
            before = json.loads(kept.read_text()) if kept.exists() else {}
            if before.get("config") == json.loads(json.dumps(cfg.to_dict())):
                found = before["measured"]
            else:
                train(cfg, folder, resume=True)
                if tests is None:
                    tests = [material(number, clips, first) for number in TEST_SETS]
                    learn = material(LEARN_SET, learn_clips, first)
                _, model, _ = load_checkpoint(folder / "checkpoint.pt")
                found = measure(model, learn, tests)
                kept.write_text(json.dumps({"config": cfg.to_dict(), "measured": found}) + "\n")
            runs.setdefault(name, {})[str(seed)] = found
            print(name, seed, {key: round(value, 3) for key, value in found.items()}, flush=True)
    record = {
        "steps": first.steps,
        "batch_size": first.batch_size,
        "clips_per_test_set": clips,
        "clips_for_classifiers": learn_clips,
        "chance": {f"linear {a}": 1 / len(ATTRIBUTES[a]) for a in ("motion", "shape")}
        | {"r@10": 10 / clips},
        "runs": runs,
        "paper": PAPER,
    }
    (out / "ablation.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def table(record: dict) -> str:
    """Means and standard deviations over the seeds, per cent, as Markdown."""
    columns = [f"{track} {attribute}" for track, attribute in PROBES] + list(PAIRS)
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, by_seed in record["runs"].items():
        cells = []
        for column in columns:
            values = [100 * one[column] for one in by_seed.values() if column in one]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}" if values else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
