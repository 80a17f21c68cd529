from __future__ import annotations

import numpy as np
import pytest

from tests.surgeon.differentiation.support import Problem, check, model, samples

DOUBLE = {
    "abs": "Abs(t)",
    "clip": "Clip(t, low, high)",
    "cos": "Cos(t)",
    "exp": "Exp(t)",
    "identity": "Identity(t)",
    "neg": "Neg(t)",
    "one-sided clip": "Clip(t, low)",
    "reciprocal": "Reciprocal(p)",
    "relu": "Relu(t)",
    "root": "Sqrt(p)",
    "sigmoid": "Sigmoid(t)",
    "sin": "Sin(t)",
    "square": "Pow(t, two)",
    "tanh": "Tanh(t)",
    "power": "Pow(p, odd)",
    "logarithm": "Log(p)",
    "upper clip": "Clip(t, , high)",
}
SINGLE = {
    "prelu": "PRelu(t, slope)",
    "leaky": "LeakyRelu<alpha=0.2>(t)",
    "celu": "Celu<alpha=0.7>(t)",
    "elu": "Elu<alpha=1.3>(t)",
    "erf": "Erf(t)",
    "gelu": "Gelu(t)",
    "gelu by tanh": 'Gelu<approximate="tanh">(t)',
    "hard sigmoid": "HardSigmoid<alpha=0.3, beta=0.4>(t)",
    "hard swish": "HardSwish(t)",
    "mish": "Mish(t)",
    "selu": "Selu(t)",
    "softplus": "Softplus(t)",
    "softsign": "Softsign(t)",
    "thresholded cast": "Cast<to=1>(t)",
}
CONSTANTS = (
    "float low = {-0.5}, float high = {0.8}, float two = {2}, float[3] odd = {3, 0.5, -1.5}, "
    "float[3] slope = {0.1, -0.3, 2}"
)


def problem(function: str, seed: int, dtype: type) -> Problem:
    rng = np.random.default_rng(seed)
    body = f"t = Mul(x, w)\n q = Abs(t)\n p = Add(q, half)\n y = {function}"
    found = model(body, "float[N,4,3] x", {"w": rng.normal(size=(4, 3))}, constants=CONSTANTS + ", float half = {0.5}")
    return Problem(found, ["w"], ["y"], samples(found, rng), dtype)


@pytest.mark.parametrize("name", DOUBLE)
def test_in_float64(name: str) -> None:
    check(problem(DOUBLE[name], 1, np.float64), tolerance=1e-6)


@pytest.mark.parametrize("name", [*DOUBLE, *SINGLE])
def test_in_float32(name: str) -> None:
    check(problem((DOUBLE | SINGLE)[name], 2, np.float32))


def test_limits_as_attributes() -> None:
    rng = np.random.default_rng(3)
    found = model("t = Add(x, w)\n y = Clip<min=-0.2, max=0.6>(t)", "float[N,5] x", {"w": rng.normal(size=5)}, opset=7)
    check(Problem(found, ["w"], ["y"], samples(found, rng)), tolerance=1e-6)


def test_kinks_get_the_slope_of_one_side() -> None:
    found = model("t = Add(x, w)\n y = Relu(t)", "float[N,1] x", {"w": np.zeros(1)})
    zero = Problem(found, ["w"], ["y"], {"x": np.zeros((2, 1))})
    slopes = zero.derivatives.push(zero.feeds, None, {"w": np.ones(1)})["y"]
    assert set(np.unique(slopes)) <= {0.0, 1.0}
