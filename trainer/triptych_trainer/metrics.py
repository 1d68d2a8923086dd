"""Retrieval metrics. Ties and NaN count against the model, so that a diverged run scores 0."""

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def normalised(vectors: Array) -> Array:
    """f64 rows of unit length. A row of zeros becomes NaN: it must not win anything."""
    vectors = vectors.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ranks(scores: Array, own: Sequence[int] | None = None) -> Array:
    """Rank (0 = first) of each query's own item. scores [Q, N]; `own` defaults to the diagonal.

    Everything that is not strictly below the own score stands before it, NaN included.
    """
    own = np.arange(len(scores)) if own is None else np.asarray(own)
    diagonal = scores[np.arange(len(scores)), own][:, None]
    return (~(scores < diagonal)).sum(axis=1) - 1


def retrieval(scores: Array, own: Sequence[int] | None = None) -> dict[str, float]:
    """R@1, R@5, R@10 as shares, and the median rank, counted from 1."""
    found = ranks(scores, own)
    recalls = {f"r@{k}": float((found < k).mean()) for k in (1, 5, 10)}
    return recalls | {"median_rank": float(np.median(found) + 1)}


def ceiling(groups: Sequence[str]) -> dict[str, float]:
    """What a model would reach that knows every attribute and nothing else: clips with the same
    caption come in random order."""
    counts = {group: groups.count(group) for group in set(groups)}
    same = np.array([counts[group] for group in groups])
    return {f"r@{k}": float(np.minimum(1.0, k / same).mean()) for k in (1, 5, 10)}


def recognised(scores: Sequence[Array], truth: Sequence[int]) -> float:
    """Share of clips whose true value scores strictly highest; scores[i] is [values]."""
    hits = [ranks(row[None], [value])[0] == 0 for row, value in zip(scores, truth, strict=True)]
    return float(np.mean(hits))
