"""Inputs of every type, and small checks that the tests of domains share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import ml_dtypes
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxprune.domain import Domain, InputSpec, SampleKind
from onnxprune.domain.rounding import outward
from onnxprune.errors import InputError

INF = math.inf
FLOAT32 = np.dtype(np.float32)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
IMAGE = InputSpec("image", FLOAT32, ("batch", 3, None, 4))
VECTOR = InputSpec("x", FLOAT32, (1, 3))
PIXELS = InputSpec("pixels", np.dtype(np.uint8), (1, 2))
INDEX = InputSpec("index", np.dtype(np.int64), (1,))
FLAG = InputSpec("flag", np.dtype(np.bool_), ())
TEXT = InputSpec("text", np.dtype(object), (1,))
UNRANKED = InputSpec("any", FLOAT32, None)
KINDS: tuple[SampleKind, ...] = get_args(SampleKind)
DTYPES = [np.dtype(t) for t in "?bBhHiIlLefd"] + [BFLOAT16]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "models" / "vnncomp"
needs_vnncomp = pytest.mark.skipif(
    not SHARED.exists(), reason="the VNN-COMP files lie in shared/models/vnncomp beside the repository"
)

patient = settings(deadline=None)  # a busy machine is no failure
finite = st.floats(-1e6, 1e6)
decimals = st.decimals(-10000, 10000, allow_nan=False)


def below(text: str) -> float:
    return outward(Decimal(text), up=False)


def above(text: str) -> float:
    return outward(Decimal(text), up=True)


def scalar(dtype: np.dtype[Any]) -> InputSpec:
    return InputSpec("x", dtype, (1,))


def ends(domain: Domain, spec: InputSpec) -> tuple[Any, Any]:
    lower, upper = domain.bounds(spec)
    assert lower.dtype == upper.dtype == np.float64
    assert lower.shape == upper.shape
    assert lower.ndim in (0, len(spec.shape or ()))
    return lower.tolist(), upper.tolist()


def f32(values: object) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def save(path: Path, arrays: Mapping[str, object]) -> str:
    named: Any = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(path, **named)
    return str(path)


def check_error(caught: pytest.ExceptionInfo[InputError], what: str, hint: str = "") -> None:
    assert caught.value.what == what
    assert hint in caught.value.hint
    assert caught.value.hint
    assert "\n" not in caught.value.what + caught.value.hint
