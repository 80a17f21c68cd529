from __future__ import annotations

import numpy as np
import pytest

from tests.surgeon.differentiation.support import Problem, check, model, samples


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("bias", ["", "(4)", "(1,4)", "()", "(1)"])
@pytest.mark.parametrize("fixed", ["N", "1"])
def test_Gemm(turned: int, bias: str, fixed: str) -> None:
    rng = np.random.default_rng(8)
    weights = {"w": rng.normal(size=(4, 3) if turned else (3, 4))}
    if bias:
        weights["b"] = rng.normal(size=tuple(int(d) for d in bias.strip("()").split(",") if d))
    operands = "x, w, b" if bias else "x, w"
    body = f"h = Gemm<transB={turned}, alpha=0.5, beta=-2.0>({operands})\n y = Tanh(h)"
    found = model(body, f"float[{fixed},3] x", weights)
    check(Problem(found, list(weights), ["y"], samples(found, rng)), tolerance=1e-6)


@pytest.mark.parametrize("attributes", ["transA=1", "transA=1, transB=1, alpha=3.0"])
def test_Gemm_on_several_rows_per_sample(attributes: str) -> None:
    rng = np.random.default_rng(9)
    weights = {"w": rng.normal(size=(3, 3)), "b": rng.normal(size=(5, 1))}
    found = model(f"h = Gemm<{attributes}>(x, w, b)\n y = Tanh(h)", "float[3,5] x", weights)
    check(Problem(found, ["w", "b"], ["y"], samples(found, rng)), tolerance=1e-6)


def test_Gemm_with_weights_on_the_left() -> None:
    rng = np.random.default_rng(10)
    found = model("h = Gemm(w, x)\n y = Tanh(h)", "float[3,5] x", {"w": rng.normal(size=(2, 3))})
    check(Problem(found, ["w"], ["y"], samples(found, rng)), tolerance=1e-6)


SHAPES = [
    ("N,3", (3, 4)),
    ("N,5,3", (3, 4)),
    ("N,2,5,3", (3, 4)),
    ("5,3", (3, 4)),
    ("N,5,3", (3,)),
    ("N,2,5,3", (2, 3, 4)),
    ("1,5,3", (2, 3, 4)),
    ("1,3", (3, 2)),
    ("3", (3, 2)),
]


@pytest.mark.parametrize(("sizes", "shape"), SHAPES, ids=str)
def test_weights_on_the_right(sizes: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(11)
    found = model(
        "h = MatMul(x, w)\n g = Tanh(h)\n y = Mul(g, c)",
        f"float[{sizes}] x",
        {"w": rng.normal(size=shape), "c": rng.normal(size=())},
    )
    check(Problem(found, ["w", "c"], ["y"], samples(found, rng)), tolerance=1e-6)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [("N,3,2", (4, 3)), ("3,2", (4, 3)), ("N,2,3,2", (2, 4, 3)), ("N,3,2", (3,)), ("3", (4, 3))],
    ids=str,
)
def test_weights_on_the_left(sizes: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(12)
    found = model("h = MatMul(w, x)\n y = Tanh(h)", f"float[{sizes}] x", {"w": rng.normal(size=shape)})
    check(Problem(found, ["w"], ["y"], samples(found, rng)), tolerance=1e-6)


def test_two_variable_operands() -> None:
    rng = np.random.default_rng(13)
    body = "a = MatMul(x, w)\n b = MatMul(x, v)\n t = Transpose<perm=[0,2,1]>(b)\n s = MatMul(a, t)\n y = MatMul(s, x)"
    weights = {"w": rng.normal(size=(3, 2)), "v": rng.normal(size=(3, 2))}
    found = model(body, "float[N,5,3] x", weights)
    check(Problem(found, ["w", "v"], ["y", "s"], samples(found, rng)), tolerance=1e-6)


def test_batches_of_matrices_that_broadcast() -> None:
    rng = np.random.default_rng(14)
    body = "a = Mul(x, w)\n b = Mul(z, v)\n y = MatMul(a, b)"
    found = model(body, "float[N,2,5,3] x, float[N,1,3,4] z", {"w": rng.normal(size=3), "v": rng.normal(size=(3, 1))})
    check(Problem(found, ["w", "v"], ["y"], samples(found, rng)), tolerance=1e-6)


def test_weights_that_are_computed_from_weights() -> None:
    rng = np.random.default_rng(15)
    body = "t = Transpose(w)\n n = ReduceL2(t, axes)\n u = Div(t, n)\n g = Tanh(v)\n k = Mul(u, g)\n y = MatMul(x, k)"
    found = model(
        body, "float[N,3] x", {"w": rng.normal(size=(4, 3)), "v": rng.normal(size=4)}, constants="int64[1] axes = {0}"
    )
    check(Problem(found, ["w", "v"], ["y"], samples(found, rng)), tolerance=1e-6)


def test_a_product_of_weights() -> None:
    rng = np.random.default_rng(16)
    found = model(
        "k = MatMul(w, v)\n y = MatMul(x, k)",
        "float[N,3] x",
        {"w": rng.normal(size=(3, 2)), "v": rng.normal(size=(2, 4))},
    )
    check(Problem(found, ["w", "v"], ["y"], samples(found, rng)), tolerance=1e-6)
