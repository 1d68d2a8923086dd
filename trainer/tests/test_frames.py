"""Resize, crop and evaluation windows against the stored reference, byte for byte."""

import json
from pathlib import Path

import numpy as np
import pytest

from triptych_trainer.frames import linspace_windows, preprocess, resize

CASES = ("down_270x480", "portrait_300x169", "same_224x398", "up_120x160")


@pytest.mark.parametrize("case", CASES)
def test_resize_and_crop(goldens: Path, case: str) -> None:
    folder = goldens / "frames"
    resized = resize(np.load(folder / f"{case}_in_u8.npy"), 224)
    assert np.array_equal(resized, np.load(folder / f"{case}_resized_u8.npy"))
    want = np.load(folder / f"{case}_crop200_u8.npy")
    assert np.array_equal(preprocess(np.load(folder / f"{case}_in_u8.npy"), 224, 200), want)


def test_linspace_windows(goldens: Path) -> None:
    stored = json.loads((goldens / "frames" / "linspace_windows.json").read_text())
    for name, want in stored.items():
        count, windows, shape = name.split("_")
        frames, stride = shape.split("x")
        got = linspace_windows(int(count[:-1]), int(windows[:-1]), int(frames), int(stride))
        assert got == want, name
