"""Merging stably active units: by hand, on random nets, and against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import onnxprune
from onnxprune.runtime import Runner
from tests.passes.support import net, run_pass

BODY = "h = Gemm <transB = 1> (x, w, b) r = Relu (h) y = Gemm <transB = 1> (r, v, c)"
WIDE: dict[str, Any] = {"w": [[1, 0], [0, 1], [1, 1], [2, 1]], "b": [5, 5, 5, 9], "v": [[1, 2, 3, 4]], "c": [7]}


def hidden_units(model: onnx.ModelProto, name: str = "w") -> int:
    return next(int(t.dims[0]) for t in model.graph.initializer if t.name == name)


def test_one_output_needs_one_active_unit() -> None:
    model = net(BODY, **WIDE)
    outcome = run_pass("merge_dependent", model, "-1:1")
    assert outcome.report.modified
    assert outcome.report.needed_domain
    assert hidden_units(outcome.model) == 1
    assert sum(outcome.report.merged.values()) == 3


def test_exact_value_by_hand() -> None:
    """y = x1 + 2 x2 + 3 (x1 + x2) + 4 (2 x1 + x2) + biases = 12 x1 + 9 x2 + 73."""
    result = onnxprune.optimize(net(BODY, **WIDE), "-1:1", goal="size")
    points = np.array([[0, 0], [1, 0], [0, 1], [-1, -1]], np.float32)
    values = Runner(result.model).run({"x": points})[0].reshape(-1)
    np.testing.assert_allclose(values, [73, 85, 82, 52], atol=1e-4)


@pytest.mark.parametrize(
    "domain",
    [None, "-10:10"],
    ids=["no domain", "a wide domain"],
)
def test_units_that_may_switch_stay(domain: str | None) -> None:
    assert not run_pass("merge_dependent", net(BODY, **WIDE), domain).report.modified


@pytest.mark.parametrize(
    "body",
    [
        "h = Gemm <transB = 1> (x, w, b) r = Sigmoid (h) y = Gemm <transB = 1> (r, v, c)",
        "h = Gemm <transB = 1> (x, w, b) r = Relu (h) s = Sigmoid (h) q = Add (r, s) y = Gemm <transB = 1> (q, v, c)",
        "h = Gemm <transB = 1> (x, w, b) r = Relu (h) n = Softmax <axis = 1> (r) y = Gemm <transB = 1> (n, v, c)",
        "h = Gemm <transB = 1> (x, w, b) r = Relu (h) n = Neg (r) y = Gemm <transB = 1> (n, v, c)",
    ],
    ids=["smooth", "read twice", "mixed", "not read by a dense layer"],
)
def test_other_structures_stay(body: str) -> None:
    assert not run_pass("merge_dependent", net(body, **WIDE), "-1:1").report.modified


def test_two_readers_count_together() -> None:
    body = f"{BODY} z = Gemm <transB = 1> (r, u, c)"
    model = net(body, outputs="float[N,1] y, float[N,1] z", u=[[1, -1, 1, -1]], **WIDE)
    outcome = run_pass("merge_dependent", model, "-1:1")
    assert outcome.report.modified
    assert hidden_units(outcome.model) == 2


def test_a_second_run_changes_nothing() -> None:
    first = onnxprune.optimize(net(BODY, **WIDE), "-1:1", goal="size")
    assert not onnxprune.optimize(first.model, "-1:1", goal="size").modified


def random_net(seed: int) -> tuple[onnx.ModelProto, int]:
    rng = np.random.default_rng(seed)
    n_in, hidden, out = (int(rng.integers(*limits)) for limits in ((1, 6), (2, 14), (1, 4)))
    drawn = {
        "w": rng.normal(size=(hidden, n_in)),
        "b": rng.normal(size=hidden) + rng.choice([0, 4], size=hidden),
        "v": rng.normal(size=(out, hidden)),
        "c": rng.normal(size=out),
    }
    tables: dict[str, Any] = {name: values.astype(np.float32) for name, values in drawn.items()}
    body = BODY.replace("transB = 1> (x", "transB = 1, alpha = 0.5, beta = 2.0> (x") if seed % 2 else BODY
    inputs, outputs = f"float[N,{n_in}] x", f"float[N,{out}] y"
    return net(body, inputs, outputs, **tables), n_in


def exact(model: onnx.ModelProto, point: list[Fraction]) -> list[Fraction]:
    """The network in rational arithmetic."""
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values = point
    for node in model.graph.node:
        if node.op_type == "Relu":
            values = [max(v, Fraction(0)) for v in values]
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        alpha, beta = (Fraction(float(attributes.get(name, 1.0))) for name in ("alpha", "beta"))
        matrix, bias = weights[node.input[1]], weights[node.input[2]]
        values = [
            alpha * sum((Fraction(float(w)) * v for w, v in zip(row, values, strict=True)), Fraction(0))
            + beta * Fraction(float(b))
            for row, b in zip(matrix, bias, strict=True)
        ]
    return values


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_deviation_holds_in_exact_arithmetic(seed: int) -> None:
    model, n_in = random_net(seed)
    outcome = run_pass("merge_dependent", model, "-1:1")
    bound = max(outcome.report.deviations.values(), default=0.0) + 8 * outcome.report.rounding
    rng = np.random.default_rng(seed)
    for _ in range(4):
        point = [Fraction(float(v)) for v in rng.choice([-1.0, 1.0, 0.25], size=n_in)]
        for a, b in zip(exact(model, point), exact(outcome.model, point), strict=True):
            assert abs(a - b) <= bound
