from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import numpy_helper

from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.surgeon.differentiation import Derivatives
from tests.surgeon.differentiation.support import Problem, Tensor, check, close, model, samples


def mixed() -> Problem:
    """One weight in front of an operator without derivative, one behind it, one on a way of its own."""
    rng = np.random.default_rng(70)
    weights = {name: rng.normal(size=(4, 4)) for name in ("front", "behind", "aside", "idle")}
    body = """
        a = MatMul(x, front)
        t, i = TopK(a, two)
        b = MatMul(t, behind)
        d = MatMul(x, aside)
        f = Floor(d)
        y = Add(b, f)
        z = MatMul(x, idle)
    """
    weights["behind"] = rng.normal(size=(2, 4))
    found = model(body, "float[N,4] x", weights, constants="int64[1] two = {2}", outputs=("y", "z"))
    return Problem(found, ["behind"], ["y"], samples(found, rng), np.float32)


def test_weights_in_front_of_what_has_no_derivative_are_refused() -> None:
    problem = mixed()
    names = ["front", "behind", "aside", "idle"]
    known = Derivatives(Graph(problem.model), names, ["y"], threads=1)
    assert known.weights == ("behind",)
    assert "TopK" in known.refused["front"]
    assert "No tap depends on it" in known.refused["aside"]
    assert "No tap depends on it" in known.refused["idle"]
    check(problem)


def test_numbers_that_say_how_are_refused() -> None:
    rng = np.random.default_rng(78)
    body = 'a = Mul(x, w)\n r = Resize<mode="nearest">(a, , scales)\n y = Reshape(r, shape)'
    weights = {"w": rng.normal(size=(2, 3)), "scales": np.array([1, 2, 1]), "shape": np.array([-1, 12])}
    found = model(body, "float[N,2,3] x", {**weights, "scales": np.array([1.0, 2.0, 1.0])})
    known = Derivatives(Graph(found), list(weights), ["y"], threads=1)
    assert known.weights == ("w",)
    assert "Resize" in known.refused["scales"]
    assert known.refused["shape"] == "It holds no floats."
    check(Problem(found, ["w"], ["y"], samples(found, rng), np.float32))


def test_no_weight_may_be_left() -> None:
    problem = mixed()
    known = Derivatives(Graph(problem.model), ["front"], ["y"], threads=1)
    assert known.weights == ()
    assert known.forward(problem.feeds)["y"].shape == (3, 4)


def test_cotangents_of_intermediate_tensors() -> None:
    rng = np.random.default_rng(71)
    weights = {"w": rng.normal(size=(4, 5)), "v": rng.normal(size=(5, 3))}
    found = model("a = MatMul(x, w)\n r = Tanh(a)\n y = MatMul(r, v)", "float[N,4] x", weights)
    problem = Problem(found, ["w", "v"], ["y"], samples(found, rng))
    c = rng.normal(size=(3, 3))
    got = problem.derivatives.cotangents(problem.feeds, None, {"y": c}, ["a", "r", "x"])
    values = problem.derivatives.forward(problem.feeds, at=["r"])
    v, w = problem.values["v"], problem.values["w"]
    close(got["r"], c @ v.T, 1e-6, "behind the activation")
    close(got["a"], (c @ v.T) * (1 - values["r"] ** 2), 1e-6, "in front of it")
    close(got["x"], got["a"] @ w.T, 1e-6, "of the input")
    gradient = problem.derivatives.pull(problem.feeds, None, {"y": c})["w"]
    close(problem.feeds["x"].T @ got["a"], gradient, 1e-6, "outer products of both")


def test_what_is_not_given_counts_as_the_graphs_values_and_zeros() -> None:
    rng = np.random.default_rng(72)
    weights = {"w": rng.normal(size=(4, 5)), "v": rng.normal(size=(4, 3))}
    found = model("y = MatMul(x, w)\n z = MatMul(x, v)", "float[N,4] x", weights, outputs=("y", "z"))
    problem = Problem(found, ["w", "v"], ["y", "z"], samples(found, rng))
    known, feeds = problem.derivatives, problem.feeds
    given, own = known.forward(feeds, problem.values), known.forward(feeds)
    np.testing.assert_array_equal(given["y"], own["y"])
    changed = known.forward(feeds, {"w": np.zeros((4, 5))})
    assert not changed["y"].any()
    np.testing.assert_array_equal(changed["z"], own["z"])
    gradient = known.pull(feeds, None, {"y": np.ones((3, 5))})
    assert not gradient["v"].any()
    assert not known.per_sample(feeds, None, {"y": np.ones((3, 5))})["v"].any()
    assert not known.push(feeds, None, {"w": np.ones((4, 5))})["z"].any()
    assert not known.curvature(feeds, None, {"w": np.ones((4, 5))}, {"z": 1.0})["w"].any()


def test_a_shared_weight_counts_once() -> None:
    rng = np.random.default_rng(73)
    found = model("a = MatMul(x, w)\n r = Tanh(a)\n y = MatMul(r, w)", "float[N,4] x", {"w": rng.normal(size=(4, 4))})
    check(Problem(found, ["w"], ["y"], samples(found, rng)), tolerance=1e-6)


def test_taps_may_be_inputs_of_one_another() -> None:
    rng = np.random.default_rng(74)
    found = model("a = MatMul(x, w)\n r = Tanh(a)\n y = MatMul(r, w)", "float[N,4] x", {"w": rng.normal(size=(4, 4))})
    check(Problem(found, ["w"], ["a", "y", "r"], samples(found, rng)), tolerance=1e-6)


def test_a_tap_that_depends_on_weights_alone() -> None:
    rng = np.random.default_rng(75)
    found = model(
        "n = ReduceL2<keepdims=0>(w)\n y = MatMul(x, w)",
        "float[N,4] x",
        {"w": rng.normal(size=(4, 4))},
        outputs=("y", "n"),
    )
    check(Problem(found, ["w"], ["y", "n"], samples(found, rng)), tolerance=1e-6)


def test_halves_are_differentiated_in_float32() -> None:
    rng = np.random.default_rng(76)
    body = "h = Cast<to=10>(x)\n a = MatMul(h, w)\n r = Relu(a)\n y = Cast<to=1>(r)"
    found = model(body, "float[N,4] x")
    found.graph.initializer.append(numpy_helper.from_array(rng.normal(size=(4, 3)).astype(np.float16), "w"))
    problem = Problem(found, ["w"], ["y"], samples(found, rng), np.float32)
    check(problem)


ERRORS: dict[str, tuple[Callable[[Graph, Tensor], object], str]] = {
    "unknown weight": (lambda d, x: Derivatives(d, ["nowhere"], ["y"]), "no initializer 'nowhere'"),
    "unknown tap": (lambda d, x: Derivatives(d, ["w"], ["nowhere"]), "no tensor 'nowhere'"),
    "missing input": (lambda d, x: Derivatives(d, ["w"], ["y"]).forward({}), "No values for input 'x'"),
    "wrong input": (
        lambda d, x: Derivatives(d, ["w"], ["y"]).forward({"x": x[:, :2]}),
        r"shape \(3, 2\), not \(samples, 4\)",
    ),
    "wrong weight": (lambda d, x: Derivatives(d, ["w"], ["y"]).forward({"x": x}, {"w": x}), "weight 'w' have shape"),
    "wrong number of samples": (
        lambda d, x: Derivatives(d, ["w"], ["y"]).pull({"x": x}, None, {"y": np.ones((2, 3))}),
        "Numbers of samples differ",
    ),
    "no samples": (lambda d, x: Derivatives(d, ["w"], ["y"]).forward({"x": x[:0]}), "Numbers of samples"),
    "unknown cotangent": (lambda d, x: Derivatives(d, ["w"], ["y"]).pull({"x": x}, None, {"a": x}), "'a' is no tap"),
    "unknown tangent": (lambda d, x: Derivatives(d, ["w"], ["y"]).push({"x": x}, None, {"v": x}), "'v' is no weight"),
    "unknown place": (lambda d, x: Derivatives(d, ["w"], ["y"]).forward({"x": x}, None, ["z"]), "'z' cannot be read"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_mistakes_are_named(case: str) -> None:
    found = model("y = MatMul(x, w)\n z = Relu(y)", "float[N,4] x", {"w": np.ones((4, 3))})
    act, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        act(Graph(found), np.ones((3, 4)))


def test_open_sizes_are_an_error() -> None:
    found = model("y = Mul(x, w)", "float[N,T,4] x", {"w": np.ones(4)})
    with pytest.raises(InputError, match="besides the batch"):
        Derivatives(Graph(found), ["w"], ["y"])


MIXING = {
    "softmax over the batch": "y = Softmax<axis=0>(a)",
    "centred over the batch": "m = ReduceMean(a, zero)\n y = Sub(a, m)",
    "running sum": "y = CumSum(a, first)",
    "product of samples": "t = Transpose(a)\n s = MatMul(a, t)\n y = MatMul(s, a)",
}


@pytest.mark.parametrize("case", MIXING)
def test_samples_that_meet_are_an_error(case: str) -> None:
    constants = "int64[1] zero = {0}, int64 first = {0}"
    found = model(f"a = MatMul(x, w)\n{MIXING[case]}", "float[N,4] x", {"w": np.ones((4, 3))}, constants=constants)
    with pytest.raises(InputError, match="mixes the samples"):
        Derivatives(Graph(found), ["w"], ["y"])


def test_samples_may_lie_along_another_axis() -> None:
    rng = np.random.default_rng(77)
    body = "t = Transpose<perm=[1,0,2]>(x)\n a = MatMul(t, w)\n s = Softmax<axis=0>(a)\n y = Mul(s, s)"
    found = model(body, "float[N,3,4] x", {"w": rng.normal(size=(4, 5))})
    check(Problem(found, ["w"], ["y"], samples(found, rng)), tolerance=1e-6)
