"""Cast: what it rounds and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest

from tests.operators.entrywise import ELEMENTWISE, bounds, box, ends, view


def test_cast_widens_only_what_it_rounds() -> None:
    single = view("y = Cast <to = 1> (x)", "double[N] x")
    assert ends(bounds(single, box(0.0, 0.5))) == (0, 0.5)
    lower, upper = ends(bounds(single, box(0.1, 0.1)))
    assert lower <= 0.1 < np.float64(np.float32(0.1)) <= upper
    assert upper - lower <= 3 * 2.0**-24 * 0.1
    assert ends(bounds(view("y = Cast <to = 11> (x)", "float[N] x"), box(0.1, 0.3))) == (0.1, 0.3)
    assert ends(bounds(view("y = Cast <to = 7> (x)", "float[N] x"), box(-1.5, 2.5))) == (-1, 2)
    assert ends(bounds(view("y = Cast <to = 2> (x)", "float[N] x"), box(-1.5, 2.5))) == (0, 255)
    lower, upper = ends(bounds(view("y = Cast <to = 16> (x)", "float[N] x"), box(1.0, 1.001)))
    assert lower == 1
    assert upper == pytest.approx(1.001 * (1 + 2**-8), rel=1e-4)
    for opaque in (8, 17):  # strings, 8-bit floats
        assert ELEMENTWISE["Cast"].interval(view(f"y = Cast <to = {opaque}> (x)", "float[N] x"), [box(0, 1)]) is None
