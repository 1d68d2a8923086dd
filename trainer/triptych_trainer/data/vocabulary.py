"""The captions of a configuration to a word list and, where there are vectors, a word table."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..config import TrainConfig
from .batches import BROKEN
from .listings import open_source
from .words import count_words, most_common, read_word2vec


def make_vocabulary(
    cfg: TrainConfig, out: Path, limit: int, least: int, word2vec: Path | None, say=print
) -> list[str]:
    """Writes the list, and the table if there are vectors to make it of."""
    if not cfg.data.sources:
        raise ValueError("the configuration has no data.sources to take words from")
    counts = count_words(_texts(cfg, say))
    if word2vec is None:
        words = most_common(counts, limit, least)
    else:
        vectors = read_word2vec(word2vec, {word for word, n in counts.items() if n >= least})
        words = [w for w in most_common(counts, len(counts), least) if w in vectors][:limit]
        table = np.stack([vectors[word] for word in words]).astype(np.float32)
        np.save(out.with_suffix(".npy"), table)
        say(f"{out.with_suffix('.npy')}: {len(table)} vectors of {table.shape[1]}")
    if not words:
        raise ValueError(f"no word occurs {least} times or more in the captions")
    out.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    covered = sum(counts[word] for word in words) / sum(counts.values())
    say(f"{out}: {len(words)} words, {covered:.1%} of all that are no stop words")
    return words


def _texts(cfg: TrainConfig, say) -> Iterator[str]:
    """Every text once for each item it is said of; items that cannot be read are counted."""
    for source in cfg.data.sources:
        collection, broken = open_source(source), 0
        for index in range(len(collection)):
            try:
                yield from collection.texts(index)
            except BROKEN:
                broken += 1
        if broken:
            say(f"{source.name}: {broken} of {len(collection)} items could not be read")
