"""What an imported model's bundle needs beside the weights: golden inputs and texts."""

import re

import numpy as np

from ..config import ModelConfig
from ..world.dataset import plain_clip
from ..world.scene import scene_of
from .vocabulary import Vocabulary

GOLDEN_SEED = 177
PHRASES = (
    "a dog barks at the door",
    "Somebody PLAYS the guitar, and sings!",
    "cut the tomato into small pieces with a knife and put it into the hot pan until it is done",
    "water running down a river",
)


def golden_inputs(
    cfg: ModelConfig, vocabulary: Vocabulary | None
) -> tuple[dict[str, np.ndarray | None], list[str]]:
    """({modality: rows}, texts): generated clips, because a bundle carries its goldens around.

    Without a vocabulary there are no text rows, and so no text tower.
    """
    clips = [plain_clip(scene_of(GOLDEN_SEED, i, held_out=True), cfg) for i in range(2)]
    inputs: dict[str, np.ndarray | None] = {
        "video": np.stack([clip.frames for clip in clips]),
        "audio": np.stack([clip.pcm for clip in clips]),
        "text": None,
    }
    if vocabulary is None:
        return inputs, []
    tokenizer, texts, rows = vocabulary.tokenizer(), [], []
    for text in (*PHRASES, *_own_words(vocabulary)):
        ids = vocabulary.encode(tokenizer, text, cfg.max_words)
        if (ids != vocabulary.pad_id).any():
            texts.append(text)
            rows.append(ids)
    inputs["text"] = np.stack(rows)
    return inputs, texts


def _own_words(vocabulary: Vocabulary) -> list[str]:
    """Texts of the list's own words, so that there are some whatever its language is: a few, and
    more than fit."""
    words = [w for w in sorted(vocabulary.ids, key=vocabulary.ids.get) if re.fullmatch(r"\w+", w)]
    step = max(1, len(words) // 24)
    chosen = words[::step][:24]
    return [" ".join(chosen[:3]), " ".join(chosen)]
