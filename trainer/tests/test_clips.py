"""The segmentation rule of the bundle's documentation, case by case."""

import numpy as np

from triptych_trainer.clips import Span, cut_frames, cut_sound, spans

WINDOW, SAMPLES = 8, 153_600


def ends(count: int, stride: float = WINDOW) -> list[tuple[int, int]]:
    return [(s.start, s.end) for s in spans(count, WINDOW, stride)]


def test_exact() -> None:
    assert ends(8) == [(0, 8)]
    assert ends(16) == [(0, 8), (8, 16)]


def test_tail_is_anchored_at_the_end() -> None:
    assert ends(9) == [(0, 8), (1, 9)]
    assert ends(20) == [(0, 8), (8, 16), (12, 20)]


def test_short_and_empty() -> None:
    assert ends(3) == [(0, 3)]
    assert ends(0) == []


def test_overlapping_and_uneven_strides() -> None:
    assert ends(16, 4) == [(0, 8), (4, 12), (8, 16)]
    # 1 s at 2.5 fps: 2.5 frames, rounded away from zero.
    assert ends(14, 2.5) == [(0, 8), (3, 11), (5, 13), (6, 14)]
    # A stride beyond the window leaves gaps, but the end is still covered.
    assert ends(30, 16) == [(0, 8), (16, 24), (22, 30)]


def test_a_short_asset_starts_over_in_picture_and_sound() -> None:
    frames = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    assert cut_frames(frames, Span(0, 3), WINDOW).ravel().tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    pcm = np.arange(1, 60_001, dtype=np.float32)
    sound = cut_sound(pcm, Span(0, 3), WINDOW, SAMPLES)
    # Three frames are 57,600 samples: the sound beyond them is cut, then it starts over.
    assert sound.shape == (SAMPLES,)
    assert sound[57_599] == 57_600 and sound[57_600] == 1
    sound = cut_sound(pcm[:50_000], Span(0, 3), WINDOW, SAMPLES)
    assert sound[49_999] == 50_000 and sound[50_000] == 0 and sound[57_600] == 1


def test_sound_that_ends_early() -> None:
    pcm = np.ones(200_000, np.float32)
    second = cut_sound(pcm, Span(8, 16), WINDOW, SAMPLES)
    assert second.sum() == 200_000 - SAMPLES and second[-1] == 0
    # Less than a tenth of a window is no sound.
    assert cut_sound(pcm[: SAMPLES + 15_359], Span(8, 16), WINDOW, SAMPLES) is None
    assert cut_sound(pcm[: SAMPLES + 15_360], Span(8, 16), WINDOW, SAMPLES) is not None
    assert cut_sound(pcm, Span(16, 24), WINDOW, SAMPLES) is None
