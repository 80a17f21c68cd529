from __future__ import annotations

import numpy as np
import pytest

from tests.surgeon.differentiation.support import Problem, check, model, samples

CASES = {
    "product": "a = Mul(x, w)\n b = Add(x, v)\n y = Mul(a, b)",
    "quotient": "a = Mul(x, w)\n b = Exp(v)\n c = Add(b, b)\n y = Div(a, c)",
    "both vary in a quotient": "a = Mul(x, w)\n b = Exp(a)\n c = Mul(x, v)\n y = Div(c, b)",
    "constant over variable": "a = Add(v, w)\n b = Mul(a, a)\n c = Exp(b)\n d = Div(one, c)\n y = Mul(d, x)",
    "difference": "a = Sub(x, w)\n b = Sub(v, a)\n y = Mul(a, b)",
    "sum of three": "a = Mul(x, w)\n y = Sum(a, v, x)",
    "mean of operands": "a = Mul(x, w)\n y = Mean(a, v)",
    "same operand twice": "a = Mul(x, w)\n b = Mul(a, a)\n c = Add(b, b)\n y = Mul(c, v)",
    "largest": "a = Mul(x, w)\n b = Add(x, v)\n y = Max(a, b)",
    "smallest of three": "a = Mul(x, w)\n b = Add(x, v)\n y = Min(a, b, x)",
    "constant condition": "a = Mul(x, w)\n b = Add(x, v)\n y = Where(mask, a, b)",
    "computed condition": "a = Mul(x, w)\n b = Add(x, v)\n c = Less(a, b)\n y = Where(c, a, b)",
    "a constant branch": "a = Mul(x, w)\n b = Mul(a, v)\n c = Greater(x, one)\n y = Where(c, one, b)",
    "truth values as numbers": "a = Mul(x, w)\n c = Greater(x, v)\n n = Not(c)\n d = Cast<to=1>(n)\n y = Mul(a, d)",
}
SHAPES = {"full": ((2, 3), (2, 3)), "row and column": ((3,), (2, 1)), "scalar": ((), (1, 2, 3))}


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_two_operands(case: str, shapes: str) -> None:
    rng = np.random.default_rng(4)
    first, second = SHAPES[shapes]
    weights = {"w": rng.normal(size=first), "v": rng.normal(size=second)}
    used = {name: value for name, value in weights.items() if case != "truth values as numbers" or name == "w"}
    found = model(CASES[case], "float[N,2,3] x", weights, constants="float one = {1}, bool[3] mask = {1, 0, 1}")
    check(Problem(found, list(used), ["y"], samples(found, rng)), tolerance=1e-6)


def test_broadcasting_between_samples_of_different_rank() -> None:
    rng = np.random.default_rng(5)
    body = "a = Mul(x, w)\n b = ReduceMean<keepdims=0>(a, axes)\n c = Sub(a, b)\n y = Mul(c, c)"
    found = model(body, "float[1,2,3] x", {"w": rng.normal(size=(2, 1))}, constants="int64[2] axes = {0, 1}")
    check(Problem(found, ["w"], ["y"], samples(found, rng)), tolerance=1e-6)


def test_inputs_without_batch() -> None:
    rng = np.random.default_rng(6)
    found = model(
        "a = Mul(x, w)\n b = Mul(a, z)\n y = Tanh(b)", "float[4,3] x, float z", {"w": rng.normal(size=(4, 1))}
    )
    check(Problem(found, ["w"], ["y"], samples(found, rng)), tolerance=1e-6)


def test_slopes_of_PRelu_may_vary() -> None:
    rng = np.random.default_rng(7)
    found = model(
        "a = Mul(x, w)\n y = PRelu(a, v)", "float[N,3,4] x", {"w": rng.normal(size=4), "v": rng.normal(size=(3, 1))}
    )
    check(Problem(found, ["w", "v"], ["y"], samples(found, rng), np.float32))
