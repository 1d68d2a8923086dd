"""Black bars: the server cuts the same clips in the same way."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from triptych_trainer.bars import divided, divisor, picture, without_bars
from triptych_trainer.cli import main
from triptych_trainer.config import SMALL_WORLD, TINY
from triptych_trainer.frames import preprocess
from triptych_trainer.media import clips_of
from triptych_trainer.world.files import encode

FIXTURE = Path(__file__).parents[2] / "tests/pictures/bars.json"
CASES = json.loads(FIXTURE.read_text())
SIDE, CROP = 6, 4
BUNDLE = FIXTURE.parents[2] / "models/small-world"


def painted(case: dict) -> np.ndarray:
    """u8 [T, H, W, 3]: rectangles one over the other on black; a colour grows by one a row and by
    two a column, so that every place can be told."""
    width, height = case["size"]
    frames = np.zeros((len(case["frames"]), height, width, 3), np.uint8)
    for frame, rectangles in zip(frames, case["frames"], strict=True):
        for left, top, w, h, *colour in rectangles:
            y, x = np.mgrid[:h, :w]
            ramp = np.array(colour)[None, None] + ((y + 2 * x) % 32)[..., None] * case["ramp"]
            frame[top : top + h, left : left + w] = ramp
    return frames


def tensor(case: dict) -> str:
    cut = without_bars(painted(case), case["window"])
    return preprocess(cut, SIDE, CROP).tobytes().hex()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["what"])
def test_the_picture_is_that_of_the_server(case: dict) -> None:
    found = picture(painted(case))
    if found is not None:
        (top, bottom), (left, right) = ((s.start, s.stop) for s in found)
        found = [left, top, right - left, bottom - top]
    assert found == case["picture"]
    assert tensor(case) == case["tensor"]


def test_blocks_become_their_mean() -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (2, 31, 47, 3), np.uint8)
    small = divided(frames, 3)
    assert small.shape == (2, 10, 15, 3)
    mean = frames[1, 6:9, 12:15].astype(float).mean(axis=(0, 1))
    assert np.array_equal(small[1, 2, 4], np.floor(mean + 0.5))
    assert divisor(1080, 1920, 32) == 1 and divisor(2160, 3840, 32) == 2
    assert divisor(2160, 3840, 8) == 1 and divisor(4320, 8192, 32) == 4


def test_a_boxed_film_gives_the_tensors_of_the_film(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    small = rng.integers(60, 220, (50, 9, 16, 3), np.uint8)
    film = small.repeat(10, axis=1).repeat(10, axis=2)
    boxed = np.pad(film, ((0, 0), (34, 34), (0, 0), (0, 0)))
    encode(tmp_path / "film.mp4", film, None, 25)
    encode(tmp_path / "boxed.mp4", boxed, None, 25)
    (want,) = (clip.frames for clip in clips_of(tmp_path / "film.mp4", TINY))

    def away(bars: str) -> float:
        (clip,) = clips_of(tmp_path / "boxed.mp4", replace(TINY, bars=bars))
        return float(np.abs(clip.frames.astype(float) - want).mean())

    assert away("crop") < 4 < 20 < away("keep")


def test_a_bundle_can_be_told_what_to_do_with_bars(tmp_path: Path) -> None:
    shutil.copy(BUNDLE / "manifest.json", tmp_path)
    before = json.loads((tmp_path / "manifest.json").read_text())
    main(["bars", str(tmp_path), "keep"])
    after = json.loads((tmp_path / "manifest.json").read_text())
    assert after["preprocessing"]["video"].pop("bars") == "keep"
    before["preprocessing"]["video"].pop("bars", None)
    assert before == after
    main(["bars", str(tmp_path), "crop"])
    assert (tmp_path / "manifest.json").read_text() == (BUNDLE / "manifest.json").read_text()


def test_the_samples_have_no_bars() -> None:
    """So their golden vectors hold, whatever becomes of bars."""
    keep, crop = (replace(SMALL_WORLD, bars=bars) for bars in ("keep", "crop"))
    files = sorted((BUNDLE / "samples/clips").iterdir())
    assert len(files) > 10
    for path in files:
        for kept, cropped in zip(clips_of(path, keep), clips_of(path, crop), strict=True):
            assert np.array_equal(kept.frames, cropped.frames), path.name


if __name__ == "__main__":
    # Fills in the tensors of the cases: python tests/test_bars.py
    for case in CASES:
        case["tensor"] = tensor(case)
    FIXTURE.write_text("[\n" + ",\n".join(json.dumps(case) for case in CASES) + "\n]\n")
    sys.exit()
