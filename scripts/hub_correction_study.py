#!/usr/bin/env python3
"""Whether query-bank normalisation (dynamic inverted softmax) would gain anything on this bundle.

Text to video over 500 held-out clips, one caption a clip, with banks of several kinds and sizes;
ties count against the right answer. With --binary also through a server, from files, with what it
has built in.

    .venv/bin/python scripts/hub_correction_study.py --binary target/release/triptych
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from confidence_study import BANK, Towers
from no_match_curve import wait_until_calibrated
from triptych_trainer.server import running_server
from triptych_trainer.world.heldout import HeldOut, held_out_set, write_file

CLIPS, MORE, SECS = 500, 300, 3.2


def normalise(scores_qv: np.ndarray, bank_bv: np.ndarray, beta: float) -> np.ndarray:
    """Inverted softmax for queries whose best clip is the best of a query of the bank as well."""
    hubs = np.isin(scores_qv.argmax(1), bank_bv.argmax(1))[:, None]
    corrected = beta * scores_qv - np.log(np.exp(beta * bank_bv).sum(0))
    return np.where(hubs, corrected, scores_qv)


def figures(scores_qv: np.ndarray) -> str:
    ranks = (scores_qv >= np.diag(scores_qv)[:, None]).sum(1)
    return "  ".join(f"R@{k} {(ranks <= k).mean():.3f}" for k in (1, 5, 10))


def served(held_out: HeldOut, binary: Path, model: Path) -> None:
    """The results of `POST /v1/evaluations` for the first clips, without and with hub
    correction."""
    pairs = [{"text": held_out.captions[n], "asset": f"{n:05}.mp4"} for n in range(CLIPS)]
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder) / "media"
        media.mkdir()
        for n, scene in enumerate(held_out.scenes[:CLIPS]):
            write_file(scene, n, media / f"{n:05}.mp4", SECS)
        with running_server(binary, model, Path(folder) / "data", media) as client:
            client.index_folder(media)
            wait_until_calibrated(client)
            body = {"pairs": pairs, "targets": ["video", "audio"], "hub_correction": "dis"}
            results = client.call("POST", "/v1/evaluations", body)["results"]
    for row in results:
        shares = "  ".join(
            f"R@{k} {row[f'r_at_{k}']['value']:.3f} "
            f"({row[f'r_at_{k}']['low']:.3f} - {row[f'r_at_{k}']['high']:.3f})"
            for k in (1, 5, 10)
        )
        way = f"{row['target']}, {row['search']}, hub correction {row['hub_correction']}"
        print(f"through the server, text to {way}: {shares}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/small-world"))
    parser.add_argument("--binary", type=Path, help="a server to measure as well")
    args = parser.parse_args()
    if args.binary is not None:
        served(held_out_set(7, CLIPS), args.binary, args.model)
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
