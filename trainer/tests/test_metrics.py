"""Ranks by hand; ties and NaN must never help."""

import numpy as np
import pytest

from triptych_trainer.metrics import ceiling, normalised, ranks, recognised, retrieval
from triptych_trainer.world.serve_eval import rank_of


def test_ranks_by_hand() -> None:
    scores = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.1, 0.2, 0.0]])
    assert ranks(scores).tolist() == [0, 1, 2]
    assert ranks(scores, [2, 0, 1]).tolist() == [1, 0, 0]
    report = retrieval(scores)
    assert report["r@1"] == pytest.approx(1 / 3)
    assert report["r@5"] == 1.0
    assert report["median_rank"] == 2.0


def test_ties_count_against() -> None:
    assert ranks(np.zeros((4, 4))).tolist() == [3, 3, 3, 3]


def test_nan_counts_against() -> None:
    assert ranks(np.full((3, 3), np.nan)).tolist() == [2, 2, 2]
    scores = np.eye(3)
    scores[0, 2] = np.nan
    assert ranks(scores).tolist() == [1, 0, 0]
    assert retrieval(np.full((20, 20), np.nan))["r@10"] == 0.0


def test_a_vector_of_zeros_wins_nothing() -> None:
    vectors = normalised(np.array([[0.0, 0.0], [3.0, 4.0]]))
    assert np.isnan(vectors[0]).all()
    assert vectors[1].tolist() == [0.6, 0.8]


def test_recognition_needs_a_strict_win() -> None:
    rows = [np.array([0.1, 0.9]), np.array([0.5, 0.5]), np.array([np.nan, 0.5])]
    assert recognised(rows, [1, 0, 1]) == pytest.approx(1 / 3)


def test_ceiling_of_equal_captions() -> None:
    assert ceiling(["a", "a", "b", "c"])["r@1"] == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
    assert ceiling(["a", "a", "b", "c"])["r@5"] == 1.0


def test_rank_among_served_hits() -> None:
    hits = [("x", 0.9), ("y", 0.5), ("z", 0.5)]
    assert [rank_of(name, hits, 10) for name in "xyz"] == [0, 2, 2]
    assert rank_of("missing", hits, 10) == 9
