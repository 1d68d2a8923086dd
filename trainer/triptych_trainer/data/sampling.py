"""Where in a file a clip is, and which captions are its candidate positives."""

from collections.abc import Sequence

import numpy as np

from .items import Caption, Item


def draw(
    item: Item,
    duration_secs: float | None,
    window_secs: float,
    caption_secs: float,
    candidates: int,
    rng: np.random.Generator,
) -> tuple[float, list[str]]:
    """(start of the clip in seconds, its candidate texts; none for an item without)."""
    first, last = item.span or (0.0, float("inf"))
    if duration_secs is not None:
        last = min(last, duration_secs)
    if not item.captions:
        texts = list(item.texts)
        chosen = [texts[i] for i in rng.permutation(len(texts))[:candidates]]
        return _uniform(first, last, window_secs, rng), chosen
    anchor = int(rng.integers(len(item.captions)))
    caption = item.captions[anchor]
    start, end = widened(caption, caption_secs)
    # A caption may run past the end of its video.
    start = min(start, max(first, last - window_secs))
    at = _uniform(max(first, start), min(last, end), window_secs, rng)
    near = nearest(item.captions, anchor, candidates)
    return at, [c.text for c in near]


def widened(caption: Caption, least_secs: float) -> tuple[float, float]:
    """The seconds of a caption, or `least_secs` around its middle if it is shorter."""
    start, end = caption.start_secs, caption.end_secs
    if end - start >= least_secs:
        return start, end
    start = max(0.0, (start + end - least_secs) / 2)
    return start, start + least_secs


def _uniform(first: float, last: float, window_secs: float, rng: np.random.Generator) -> float:
    room = last - window_secs - first
    # Drawn in any case: what follows must not depend on the length of a file.
    share = rng.uniform()
    return first + share * room if 0 < room < float("inf") else first


def nearest(captions: Sequence[Caption], anchor: int, count: int) -> list[Caption]:
    """`count` captions in a row around `anchor` that together take the least time (MIL-NCE); all of
    them if there are fewer."""
    first = last = anchor
    while last - first + 1 < min(count, len(captions)):
        if first == 0:
            last += 1
        elif last == len(captions) - 1:
            first -= 1
        else:
            back = captions[last].end_secs - captions[first - 1].start_secs
            on = captions[last + 1].end_secs - captions[first].start_secs
            first, last = (first - 1, last) if back < on else (first, last + 1)
    return list(captions[first : last + 1])
