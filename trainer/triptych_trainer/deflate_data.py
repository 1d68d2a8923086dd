"""Pictures to learn deflation from, and its evaluation beside inflation (the paper's table 3)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .bars import without_bars
from .config import ModelConfig
from .deflate import Deflated, inflate
from .frames import preprocess
from .metrics import normalised, retrieval
from .models.heads import GRAPHS
from .models.mmv import Mmv
from .world.dataset import _compressed as compressed
from .world.dataset import batch_scenes
from .world.heldout import held_out_set, tensors
from .world.render import render

CHUNK = 50


def world_images(cfg: ModelConfig, batch_size: int, seed: int = 0) -> Iterator[Tensor]:
    """Batches u8 [B, H, W, 3] without end: single frames of training scenes."""
    rng = np.random.default_rng([seed, 77])
    while True:
        scenes = batch_scenes(rng, batch_size)
        moments = rng.uniform(0.0, 16.0 + cfg.window_secs, size=(batch_size, 1))
        frames = [
            compressed(render(scene, at, cfg.crop, softness=rng.uniform(0.4, 1.8)), rng)
            for scene, at in zip(scenes, moments, strict=True)
        ]
        yield torch.from_numpy(np.concatenate(frames))


def file_images(
    paths: list[Path], cfg: ModelConfig, batch_size: int, seed: int = 0, limit: int = 20_000
) -> Iterator[Tensor]:
    """Batches of pictures, and of the frames of videos at one a second, as the server crops
    them. At most `limit` are held in memory."""
    from .media import decode

    held: list[np.ndarray] = []
    for path in paths:
        frames = decode(path, fps=1.0).frames
        if frames is not None:
            # As still pictures, each for itself.
            cut = (
                without_bars(f, 1) if cfg.bars == "crop" else f
                for f in np.split(frames, len(frames))
            )
            held += [preprocess(frame, cfg.resize, cfg.crop)[0] for frame in cut]
        if len(held) >= limit:
            break
    if not held:
        raise ValueError("no picture in any of the files")
    rng, every = np.random.default_rng(seed), np.stack(held[:limit])
    while True:
        yield torch.from_numpy(every[rng.integers(len(every), size=batch_size)])


@torch.no_grad()
def _embed(embed, rows: np.ndarray) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    for i in range(0, len(rows), CHUNK):
        for space, vectors in embed(torch.from_numpy(rows[i : i + CHUNK])).items():
            parts.setdefault(space, []).append(vectors.numpy())
    return {space: normalised(np.concatenate(vectors)) for space, vectors in parts.items()}


def evaluate_deflation(model: Mmv, deflated: Deflated, clips: int, number: int = 0) -> dict:
    """Naive, deflated and inflated side by side over held-out clips: the middle frame of each as
    the picture; cosine to the inflated vector; picture -> its own video, and, where there is a
    text tower, caption -> its picture."""
    cfg = model.cfg
    held_out = held_out_set(number, clips)
    frames, _ = tensors(held_out, cfg)
    images = np.ascontiguousarray(frames[:, cfg.frames // 2])
    inflated = _embed(lambda x: model.embed_video(inflate(x, cfg.frames)), images)
    video = _embed(model.embed_video, frames)
    texts = _captions(model, held_out.captions)
    found = {
        "naive": _embed(Deflated(model).embed_image, images),
        "deflated": _embed(deflated.embed_image, images),
        "inflated": inflated,
    }
    report: dict = {
        "protocol": "middle frame of held-out clips of the small world as the picture",
        "clips": clips,
        "chance_r@10": 10 / clips,
    }
    for name, vectors in found.items():
        report[name] = {}
        for space in vectors:
            cosine = (vectors[space] * inflated[space]).sum(axis=1)
            row = {
                "cosine_mean": round(float(cosine.mean()), 4),
                "cosine_min": round(float(cosine.min()), 4),
                "image->video": retrieval(vectors[space] @ video[space].T),
            }
            if space in texts:
                row["text->image"] = retrieval(texts[space] @ vectors[space].T)
            report[name][space] = row
    return report


def _captions(model: Mmv, captions: list[str]) -> dict[str, np.ndarray]:
    """Unit vectors by space; none for a model whose words are not the small world's."""
    from .tokenizer import build_tokenizer, encode
    from .world.captions import vocabulary

    tokenizer = build_tokenizer(vocabulary())
    spaces = [s.name for s in GRAPHS[model.cfg.spaces] if "text" in s.members]
    if not spaces or tokenizer.get_vocab_size() > model.cfg.vocab_size:
        return {}
    ids = np.stack([encode(tokenizer, text, model.cfg.max_words) for text in captions])
    return _embed(model.embed_text, ids)


def table(report: dict) -> str:
    """For the terminal."""
    lines = [f"{'':22}{'cosine':>8}{'min':>8}{'R@1':>7}{'R@5':>7}{'R@10':>7}"]
    for name in ("naive", "deflated", "inflated"):
        for space, row in report[name].items():
            recalls = "".join(f"{row['image->video'][f'r@{k}']:7.3f}" for k in (1, 5, 10))
            cosines = f"{row['cosine_mean']:8.4f}{row['cosine_min']:8.4f}"
            lines.append(f"{name + ' ' + space:22}{cosines}{recalls}")
    return "\n".join(lines)
