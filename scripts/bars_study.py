"""The cost of black bars for retrieval, and the gain of cropping them.

Held-out clips of the small world as MP4 files with bars around them, read as the trainer and the
server read files, and embedded by a bundle's towers.

    .venv/bin/python scripts/bars_study.py --clips 200

One line for each kind of bars and each choice of `preprocessing.video.bars`.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
from triptych_trainer.config import SMALL_WORLD
from triptych_trainer.media import clips_of
from triptych_trainer.metrics import normalised, retrieval
from triptych_trainer.tokenizer import build_tokenizer, encode
from triptych_trainer.world import captions
from triptych_trainer.world.heldout import BARS, HeldOut, held_out_set, write_file


class Bundle:
    """Its towers, one item at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sessions = folder, {}

    def embed(self, tower: str, space: str, rows: np.ndarray) -> np.ndarray:
        if tower not in self.sessions:
            path = self.folder / f"{tower}.onnx"
            self.sessions[tower] = ort.InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
        session = self.sessions[tower]
        name = session.get_inputs()[0].name
        each = [session.run([space], {name: row[None]})[0][0] for row in rows]
        return normalised(np.stack(each).astype(np.float64))


def tensors(held_out: HeldOut, bars: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Frames by what becomes of bars, and sound."""
    frames, pcm = {"keep": [], "crop": []}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for index, scene in enumerate(held_out.scenes):
            write_file(scene, index, path, SMALL_WORLD.window_secs, bars)
            for choice, found in frames.items():
                clip = clips_of(path, replace(SMALL_WORLD, bars=choice))[0]
                found.append(clip.frames)
            pcm.append(clip.pcm)
    return {choice: np.stack(found) for choice, found in frames.items()}, np.stack(pcm)


def main() -> None:
    root = Path(__file__).parents[1]
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--model", type=Path, default=root / "models/small-world")
    options.add_argument("--clips", type=int, default=200)
    options.add_argument("--set", type=int, default=0)
    given = options.parse_args()
    bundle, held_out = Bundle(given.model), held_out_set(given.set, given.clips)
    tokenizer = build_tokenizer(captions.vocabulary())
    ids = [encode(tokenizer, text, SMALL_WORLD.max_words) for text in held_out.captions]
    texts = bundle.embed("text", "coarse", np.stack(ids).astype(np.int64))
    for bars in ("none", *BARS):
        frames, pcm = tensors(held_out, bars)
        sounds = bundle.embed("audio", "fine", pcm)
        cut = (frames["keep"] != frames["crop"]).reshape(len(pcm), -1).any(axis=1).sum()
        for choice, rows in frames.items():
            by_text = retrieval(texts @ bundle.embed("video", "coarse", rows).T)
            by_sound = retrieval(sounds @ bundle.embed("video", "fine", rows).T)
            shown = [f"{by[k]:.3f}" for by in (by_text, by_sound) for k in ("r@1", "r@10")]
            print(
                f"{bars:10} {choice} ({cut} of {len(pcm)} cut): R@1, R@10 by text and by sound",
                *shown,
            )


if __name__ == "__main__":
    main()
