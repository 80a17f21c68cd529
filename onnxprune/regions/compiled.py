"""Inner loops: compiled where numba is installed (extra ``regions``), plain numpy with the same answers elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

COMPILED = False
"""Whether inner loops are compiled."""

if not os.environ.get("ONNXPRUNE_NO_NUMBA"):
    try:
        import numba

        COMPILED = True
    except ImportError:
        pass


def compiled(function: F) -> F:
    """Compile a function that only uses arrays and numbers; kept on disk between runs."""
    return cast(F, numba.njit(cache=True)(function)) if COMPILED else function


def compiled_sums(function: F) -> F:
    """The same for long sums, whose order is left to the compiler."""
    if not COMPILED:
        return function
    return cast(F, numba.njit(cache=True, fastmath={"reassoc", "contract"})(function))
