"""Ctrl-C: the first one finishes with what there is so far, the second one stops."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def finishing(what: str = "what is proved") -> Iterator[Callable[[], bool]]:
    """A question that turns True at the first Ctrl-C inside the block; a second one raises KeyboardInterrupt.

    Args:
        what: What the work ends with then.
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print(f"onnxprune: finishing with {what}; Ctrl-C again to stop.", file=sys.stderr)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: the caller's own handling stays
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
