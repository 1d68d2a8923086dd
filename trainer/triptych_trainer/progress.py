"""Lines about long work, on stderr."""

import sys
import time
from collections.abc import Callable


def progress() -> Callable[[str], None]:
    """Says lines with the seconds since the start."""
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begun:6.1f} s] {line}", file=sys.stderr, flush=True)

    return say
