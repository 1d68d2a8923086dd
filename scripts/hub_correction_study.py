#!/usr/bin/env python3
"""Whether query-bank normalisation (dynamic inverted softmax) would gain anything on this bundle.

Text to video over 500 held-out clips, one caption a clip, with banks of several kinds and sizes;
ties count against the right answer.

    .venv/bin/python scripts/hub_correction_study.py
"""

import argparse
from pathlib import Path

import numpy as np
from confidence_study import BANK, Towers
from triptych_trainer.heldout import held_out_set

CLIPS, MORE = 500, 300


def normalise(scores_qv: np.ndarray, bank_bv: np.ndarray, beta: float) -> np.ndarray:
    """Inverted softmax for queries whose best clip is the best of a query of the bank as well."""
    hubs = np.isin(scores_qv.argmax(1), bank_bv.argmax(1))[:, None]
    corrected = beta * scores_qv - np.log(np.exp(beta * bank_bv).sum(0))
    return np.where(hubs, corrected, scores_qv)


def figures(scores_qv: np.ndarray) -> str:
    ranks = (scores_qv >= np.diag(scores_qv)[:, None]).sum(1)
    return "  ".join(f"R@{k} {(ranks <= k).mean():.3f}" for k in (1, 5, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/small-world"))
    args = parser.parse_args()
    towers, rng = Towers(args.model), np.random.default_rng(0)
    held_out = held_out_set(7, CLIPS + MORE)
    clips = towers.pictures(held_out.scenes[:CLIPS])
    captions = towers.texts(held_out.captions)
    scores = captions[:CLIPS] @ clips.T
    print(f"as it is: {figures(scores)}")
    described = [towers.describe(clips[i], 3) for i in rng.choice(CLIPS, BANK, replace=False)]
    at_random = [" ".join(rng.choice(towers.words, 3, replace=False)) for _ in range(1000)]
    banks = {
        f"{BANK} descriptions": towers.texts(described),
        "1000 texts of words at random": towers.texts(at_random),
        f"{MORE} captions of other clips": captions[CLIPS:],
    }
    for name, bank in banks.items():
        for beta in (5.0, 10.0, 20.0):
            corrected = normalise(scores, bank @ clips.T, beta)
            print(f"{name}, 1 / temperature {beta:.0f}: {figures(corrected)}")


if __name__ == "__main__":
    main()
