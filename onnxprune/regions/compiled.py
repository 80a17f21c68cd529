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
    return _compiled(function) if COMPILED else function


def compiled_sums(function: F) -> F:
    """The same for long sums, whose order is left to the compiler."""
    return _compiled(function, fastmath={"reassoc", "contract"}) if COMPILED else function


def _compiled(function: F, **options: Any) -> F:
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # there is no folder to keep it in: every run compiles anew
        return cast(F, numba.njit(**options)(function))
