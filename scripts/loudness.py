"""Retrieval by sound that is quiet or in noise, on held-out clips of the small world.

    .venv/bin/python scripts/loudness.py [--bundle models/small-world] [--sets 2] [--clips 500]

The bundle's own towers run in ONNX Runtime. `audio->video`: the sound of the query is disturbed;
`text->audio`: the sound of the library is. Quiet is a gain, noise is white, at a level below that
of the clip's own sound.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "trainer"))

from triptych_trainer.config import SMALL_WORLD
from triptych_trainer.metrics import normalised, retrieval
from triptych_trainer.tokenizer import build_tokenizer, encode
from triptych_trainer.world import captions
from triptych_trainer.world.dataset import plain_clip
from triptych_trainer.world.heldout import held_out_set

CASES = (
    "clean",
    "-10 dB",
    "-20 dB",
    "-30 dB",
    "SNR 10 dB",
    "SNR 5 dB",
    "SNR 0 dB",
    "-20 dB, SNR 5 dB",
)
BATCH = 32


def disturbed(pcm: np.ndarray, case: str, rng: np.random.Generator) -> np.ndarray:
    """The sound at another level, or with white noise."""
    gain_db, snr_db = 0.0, None
    for part in case.split(", "):
        if part.startswith("SNR"):
            snr_db = float(part.split()[1])
        elif part != "clean":
            gain_db = float(part.split()[0])
    out = pcm
    if snr_db is not None:
        rms = np.sqrt(np.mean(np.square(pcm, dtype=np.float64)))
        noise = rng.standard_normal(pcm.shape, dtype=np.float32)
        out = np.clip(pcm + noise * np.float32(rms * 10 ** (-snr_db / 20)), -1, 1)
    return out * np.float32(10 ** (gain_db / 20))


class Towers:
    def __init__(self, bundle: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        self.sessions = {
            name: ort.InferenceSession(
                str(bundle / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for name in ("video", "audio", "text")
        }

    def __call__(self, tower: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """{space: unit rows}."""
        session = self.sessions[tower]
        names = [out.name for out in session.get_outputs()]
        takes = session.get_inputs()[0].name
        parts = [
            session.run(names, {takes: rows[i : i + BATCH]}) for i in range(0, len(rows), BATCH)
        ]
        whole = zip(names, zip(*parts, strict=True), strict=True)
        return {name: normalised(np.concatenate(each)) for name, each in whole}


def measure(towers: Towers, number: int, clips: int) -> dict[str, dict[str, dict[str, float]]]:
    """{case: {direction: recalls}} of one held-out set."""
    held_out = held_out_set(number, clips)
    made = [plain_clip(scene, SMALL_WORLD) for scene in held_out.scenes]
    video = towers("video", np.stack([clip.frames for clip in made]))
    tokenizer = build_tokenizer(captions.vocabulary())
    ids = [encode(tokenizer, text, SMALL_WORLD.max_words) for text in held_out.captions]
    text = towers("text", np.stack(ids))
    report = {}
    for case in CASES:
        rng = np.random.default_rng([number, CASES.index(case)])
        audio = towers("audio", np.stack([disturbed(clip.pcm, case, rng) for clip in made]))
        report[case] = {
            "audio->video": retrieval(audio["fine"] @ video["fine"].T),
            "text->audio": retrieval(text["coarse"] @ audio["coarse"].T),
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("models/small-world"))
    parser.add_argument("--sets", type=int, default=2)
    parser.add_argument("--first-set", type=int, default=0)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    towers = Towers(given.bundle)
    numbers = range(given.first_set, given.first_set + given.sets)
    sets = [measure(towers, number, given.clips) for number in numbers]
    mean = {
        case: {
            kind: {k: float(np.mean([one[case][kind][k] for one in sets])) for k in row}
            for kind, row in kinds.items()
        }
        for case, kinds in sets[0].items()
    }
    print("| sound | audio → video R@1 | R@10 | text → audio R@1 | R@10 |\n|---|---|---|---|---|")
    for case, kinds in mean.items():
        cells = [f"{row[k]:.3f}" for row in kinds.values() for k in ("r@1", "r@10")]
        print(f"| {case} | {' | '.join(cells)} |")
    if given.json:
        given.json.write_text(json.dumps({"sets": sets, "mean": mean}, indent=1) + "\n")


if __name__ == "__main__":
    main()
