"""Black bars around the picture of a clip (`docs/bundle.md`, "Black bars").

The server computes the same in Rust; the clips in `tests/pictures/bars.json` test both."""

import numpy as np

Array = np.ndarray
BLACK = 16
"""What each channel of a black pixel is at most."""
WINDOW_BYTES = 128 << 20
"""What the middle squares of one window's frames may take; larger frames are divided first."""


def picture(frames: Array) -> tuple[slice, slice] | None:
    """Rows and columns of the picture in the frames u8 [T, H, W, 3] of one clip; None where there
    are no bars around it."""
    height, width = frames.shape[1:3]
    if _lit_edges(frames, width) and _lit_edges(frames.swapaxes(1, 2), height):
        return None
    rows, columns = np.zeros(height, np.int64), np.zeros(width, np.int64)
    for frame in frames:
        # The lines of pixels that are not black; of the frames, the most in any of them.
        lit = (frame > BLACK).any(axis=-1)
        rows = np.maximum(rows, lit.sum(axis=1))
        columns = np.maximum(columns, lit.sum(axis=0))
    # Lines are those of the picture, which may itself be narrower than the frame.
    above = _bars(rows, width, _extent(columns, height))
    beside = _bars(columns, height, _extent(rows, width))
    if above is None or beside is None:
        above, beside = _bars(rows, width, width), None
    if above is None:
        beside = _bars(columns, height, height)
    if above is None and beside is None:
        return None
    (top, bottom), (left, right) = above or (0, 0), beside or (0, 0)
    return slice(top, height - bottom), slice(left, width - right)


def _lit_edges(frames: Array, pixels: int) -> bool:
    """Whether the first or the last row, of so many pixels, is lit in any frame, as in most
    films."""
    lit = (frames[:, [0, -1]] > BLACK).any(axis=-1).sum(axis=2)
    return not _black(lit, pixels).all()


def _black(lit: Array, pixels: int) -> Array:
    return lit <= pixels // 100


def _extent(lit: Array, pixels: int) -> int:
    """From the first to the last line that is not black, if there are black ones on both sides."""
    black = _black(lit, pixels)
    if not (black[0] and black[-1]):
        return len(lit)
    seen = np.flatnonzero(~black)
    return int(seen[-1] + 1 - seen[0]) if len(seen) else 0


def _bars(lit: Array, pixels: int, covered: int) -> tuple[int, int] | None:
    """The bars on both ends of an axis whose lines have `pixels` pixels, of which the picture
    covers `covered` or less."""
    lines, black = len(lit), _black(lit, pixels)
    # A line of the picture is lit over half of its width: text, a moon and a face on black are not.
    of_picture = np.flatnonzero((lit > 0) & (lit * 2 >= covered))
    if not (len(of_picture) and black[0] and black[-1]):
        return None
    low, high = int(of_picture[0]), int(lines - 1 - of_picture[-1])
    # Compression leaves traces of the picture beside it.
    traces = 2 + lines // 100
    large = min(low, high) > traces and (low + high) * 32 >= lines
    alike = abs(low - high) <= max(2, lines // 50)
    if not (large and alike and (lines - low - high) * 5 >= lines):
        return None
    ends = black[: low - traces], black[lines - high + traces :]
    partly = all(int(end.sum()) * 4 >= bar for end, bar in zip(ends, (low, high), strict=True))
    # In one of the bars there may be subtitles or a logo.
    clean = [bool(end.all()) for end in ends]
    return (low, high) if all(clean) or (partly and any(clean)) else None


def without_bars(frames: Array, window: int) -> Array:
    """The frames of one clip cut to their picture, for a tower of `window` frames; as they are
    where there are no bars."""
    part = picture(frames)
    if part is None:
        return frames
    rows, columns = part
    by = divisor(*frames.shape[1:3], window)
    if by == 1:
        return frames[:, rows, columns]
    rows, columns = (slice(-(-s.start // by), s.stop // by) for s in part)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return frames
    return divided(frames, by)[:, rows, columns]


def divisor(height: int, width: int, window: int) -> int:
    short, by = min(height, width), 1
    while 3 * window * (short // by) ** 2 > WINDOW_BYTES:
        by += 1
    return by


def divided(frames: Array, by: int) -> Array:
    """Blocks of `by` x `by` pixels become their mean, halves rounded up."""
    height, width = (side // by for side in frames.shape[1:3])
    out = np.empty((len(frames), height, width, 3), np.uint8)
    for to, frame in zip(out, frames, strict=True):
        blocks = frame[: height * by, : width * by].reshape(height, by, width, by, 3)
        to[:] = (blocks.sum(axis=(1, 3), dtype=np.uint32) + by * by // 2) // (by * by)
    return out
