"""Silence for libraries that print from C whatever they are told."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDOUT = 1
_LOCK = threading.Lock()


@contextmanager
def silent() -> Iterator[None]:
    """Send what C code prints to standard output nowhere, and put everything back whatever happens.

    The redirection holds for the whole process; calls from several threads follow one another.
    """
    with _LOCK:
        _flush()
        try:
            kept = os.dup(_STDOUT)
        except OSError:  # no standard output at all
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _STDOUT)
            os.close(nowhere)
            yield
        finally:
            _flush()
            os.dup2(kept, _STDOUT)
            os.close(kept)


def _flush() -> None:
    """Empty the buffers of Python and of the C library."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)
