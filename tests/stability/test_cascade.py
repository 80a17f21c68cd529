"""What once went wrong in the cascade."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.domain import Domain
from onnxprune.domain.types import Box, Constraint
from onnxprune.stability import cascade
from onnxprune.stability.proofs import Proofs
from tests.bounds.exact import in_range, outside, run_exact
from tests.passes.support import net
from tests.stability.support import prove_all

TWO_READERS = """
    h = Gemm <transB=1> (x, w, b) a = Relu (h) c = Max (h, one) q = Concat <axis=1> (a, c)
    k = Gemm <transB=1> (q, v, d) r = Relu (k) g = Gemm <transB=1> (r, u, e) y = Relu (g)
"""


def box(low: float, high: float) -> Domain:
    return Domain({"x": Box(np.array(low), np.array(high))})


def quarters(rng: np.random.Generator, *shape: int) -> Any:
    return np.asarray(rng.integers(-4, 5, shape) / 4, np.float32)


def check_everywhere(proofs: Proofs, model: Any, points: Any) -> None:
    for x in points:
        values = run_exact(model, x)
        for stage in proofs.stages:
            names = [name for name in values if name in stage.bounds]
            ends = [{n: getattr(stage.bounds[n], side) for n in names} for side in ("lower", "upper")]
            assert not in_range(values) or outside(values, *ends) == []


@pytest.mark.parametrize("seed", [4, 51])
def test_two_activations_of_one_tensor_have_knots_of_their_own(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds on h were taken for bounds on h - 1."""
    rng = np.random.default_rng(seed)
    tables = {"w": quarters(rng, 2, 2), "b": quarters(rng, 2), "v": quarters(rng, 3, 4), "d": quarters(rng, 3)}
    monkeypatch.setattr(cascade, "LEAVES", 64)
    tables |= {"u": quarters(rng, 3, 3), "e": quarters(rng, 3)}
    model = net(TWO_READERS, "float[N,2] x", "float[N,3] y", **tables)
    points = [*rng.uniform(-1, 1, (20, 1, 2)), *rng.choice([-1.0, 0.0, 1.0], (20, 1, 2))]
    check_everywhere(prove_all(model, box(-1, 1), budget=2), model, points)


@pytest.mark.parametrize("limits", ["", ", three, half"])
def test_a_clip_without_a_knot(limits: str) -> None:
    """No limits at all, or a lower one above the upper one."""
    model = net(f"h = Gemm <transB=1> (x, w) y = Clip (h{limits})", "float[N,2] x", "float[N,2] y", w=[[1, 2], [3, -1]])
    assert prove_all(model, box(-1, 1)).switching == {}


@pytest.mark.parametrize("runs", [False, True])
def test_runs_outside_linear_constraints_refute_nothing(runs: bool) -> None:
    """x0 + x1 <= 0 keeps the unit inactive; two corners of the box switch it."""
    body = "h = Gemm <transB=1> (x, w) r = Relu (h) g = Gemm <transB=1> (r, v, d) y = Relu (g)"
    tables: dict[str, Any] = {"w": [[1, 1], [1, -1]], "v": [[1, 0], [3, -1]], "d": [-0.25, 0]}
    model = net(body, "float[N,2] x", "float[N,2] y", **tables)
    constraint = Constraint((("x", 0, 1.0), ("x", 1, 1.0)), 0.0)
    domain = Domain({"x": Box(np.full((1, 2), -1.0), np.full((1, 2), 1.0))}, (constraint,))
    proofs = prove_all(model, domain, runs=runs)
    assert proofs.switching["h", 1].tolist() == [False, True]
    assert not proofs.switching["g", 1].any()
