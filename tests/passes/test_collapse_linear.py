"""Composing layers between which no activation binds."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxprune import optimize
from onnxprune.graph.cost import cost
from tests.helpers import run
from tests.passes.support import Done, net, run_pass, settle, unchanged

NAME = "collapse_linear"
PLAIN = "h = Gemm <transB = 1> (x, w, b) y = Gemm <transB = 1> (h, v, c)"
ACTIVE = "h = Gemm <transB = 1> (x, w, b) r = Relu (h) y = Gemm <transB = 1> (r, v, c)"
WIDE: dict[str, Any] = {"w": [[1, 0], [0, 1], [1, 1], [2, 1]], "b": [5, 5, 5, 9], "v": [[1, 2, 3, 4]], "c": [7]}
MODELS = Path(__file__).resolve().parents[3] / "shared" / "models" / "exact" / "mnist_trained"


def test_two_affine_maps_by_hand() -> None:
    """v w = (1 + 3 + 8, 2 + 3 + 4), v b + c = 5 + 10 + 15 + 36 + 7; for every input."""
    done = run_pass(NAME, net(PLAIN, **WIDE))
    assert done.ops == ["Gemm"]
    assert done.layer("y") == [[[12, 9]], [73]]
    assert not done.report.needed_domain
    assert done.report.deviations == {}
    assert done.report.removed == {"h": [0, 1, 2, 3]}


def test_stably_active_units_are_an_affine_map() -> None:
    done = run_pass(NAME, net(ACTIVE, **WIDE), "-1:1")
    assert done.ops == ["Gemm"]
    assert done.layer("y") == [[[12, 9]], [73]]
    assert done.report.needed_domain
    assert 0 < done.deviation < 1e-12


@pytest.mark.parametrize(
    ("activation", "domain"), [("LeakyRelu (h)", "-1:1"), ("Clip (h, zero, most)", "-1:1"), ("HardSwish (h)", "0:1")]
)
def test_other_activations_that_never_bind(activation: str, domain: str) -> None:
    body = ACTIVE.replace("Relu (h)", activation)
    done = run_pass(NAME, net(body, most=np.array(100, np.float32), **WIDE), domain, tolerance=1e-4)
    assert done.layer("y") == [[[12, 9]], [73]]


@pytest.mark.parametrize("domain", [None, "-10:10", "-5:5.1"])
def test_one_unit_that_may_switch_keeps_the_layer(domain: str | None) -> None:
    unchanged(NAME, net(ACTIVE, **WIDE), domain)


def test_a_composition_that_costs_more_is_not_made() -> None:
    """5 -> 1 -> 5 has 10 weights, 5 -> 5 has 25."""
    model = net(PLAIN, "float[N,5] x", "float[N,5] y", w=[[1] * 5], b=[0], v=[[1]] * 5, c=[0] * 5)
    unchanged(NAME, model)


def test_equal_cost_is_no_gain() -> None:
    """1 -> 1 -> 1 spares two parameters; without biases 2 -> 2 -> 2 spares four weights."""
    assert run_pass(NAME, net(PLAIN, "float[N,1] x", w=[[2]], b=[1], v=[[3]], c=[1])).layer("y") == [[[6]], [4]]
    body = "h = MatMul (x, w) y = MatMul (h, v)"
    done = run_pass(NAME, net(body, outputs="float[N,2] y", w=[[1, 2], [3, 4]], v=[[0, 1], [1, 0]]))
    assert done.layer("y") == [[[2, 1], [4, 3]]]


def test_all_readers_take_part() -> None:
    body = f"{PLAIN} z = Gemm <transB = 1> (h, u, c)"
    done = run_pass(NAME, net(body, outputs="float[N,1] y, float[N,1] z", u=[[1, -1, 1, -1]], **WIDE))
    assert done.ops == ["Gemm", "Gemm"]
    assert done.layer("z") == [[[0, -1]], [3]]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (PLAIN, "float[N,1] y, float[N,4] h"),
        (ACTIVE, "float[N,1] y, float[N,4] r"),
        (f"{PLAIN} z = Tanh (h)", "float[N,1] y, float[N,4] z"),
        (f"{ACTIVE} z = Softmax (r)", "float[N,1] y, float[N,4] z"),
        (f"{ACTIVE} z = Neg (h)", "float[N,1] y, float[N,4] z"),
        ("h = Gemm <transB = 1> (x, w, b) t = Transpose (h) y = MatMul (h, t)", "float[N,N] y"),
    ],
    ids=["output", "output behind", "reader", "reader behind", "read before the activation", "both operands"],
)
def test_what_others_read_stays(body: str, outputs: str) -> None:
    unchanged(NAME, net(body, outputs=outputs, **WIDE), "-1:1")


def test_protected_units_stay() -> None:
    done = run_pass(NAME, net(PLAIN, **WIDE), protected={"h": frozenset({2})})
    assert not done.report.modified


def test_weights_half_precision_cannot_hold_are_refused() -> None:
    tables: dict[str, Any] = {k: np.asarray(v, np.float16) for k, v in {**WIDE, "v": [[0.1, 0.2, 0.3, 0.7]]}.items()}
    unchanged(NAME, net(PLAIN, "float16[N,2] x", "float16[N,1] y", **tables))


def test_a_whole_stack_goes_at_once() -> None:
    """Six layers of 3 units, all active: one layer, the deviations of the steps added up."""
    rng = np.random.default_rng(0)
    names = [f"w{i}" for i in range(6)]
    body = " ".join(f"h{i} = Gemm ({f'r{i - 1}' if i else 'x'}, w{i}, b) r{i} = Relu (h{i})" for i in range(6))
    tables: dict[str, Any] = {name: rng.uniform(0, 0.4, (3, 3)).astype(np.float32) for name in names}
    model = net(f"{body} y = Gemm (r5, w0, b)", "float[N,3] x", "float[N,3] y", b=[2, 2, 2], **tables)
    done = run_pass(NAME, model, "-1:1", tolerance=1e-4)
    assert done.ops == ["Gemm"]
    assert len(done.report.removed) == 6
    assert 0 < done.deviation < 1e-5


def test_rows_of_a_matrix_product_on_more_axes() -> None:
    body = "h = MatMul (x, w) r = Relu (h) y = MatMul (r, v)"
    model = net(body, "float[N,5,2] x", "float[N,5,1] y", w=[[1, 2, 3], [1, 1, 1]], v=[[1], [2], [3]])
    done = run_pass(NAME, model, "1:2")
    assert done.layer("y") == [[[14], [6]]]


def exact(model: onnx.ModelProto, point: list[Fraction]) -> list[Fraction]:
    """The network in rational arithmetic."""
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Relu":
            point = [max(v, Fraction(0)) for v in point]
            continue
        matrix, bias = weights[node.input[1]], weights[node.input[2]]
        point = [
            sum((Fraction(float(w)) * v for w, v in zip(row, point, strict=True)), Fraction(float(b)))
            for row, b in zip(matrix, bias, strict=True)
        ]
    return point


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_deviation_holds_in_exact_arithmetic(seed: int) -> None:
    """Only the rounding of the biases (one per layer) comes on top."""
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(1, 8, 4)]
    body, x = "", "x"
    tables: dict[str, Any] = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        lift = float(rng.choice([0, 5 * 8**i]))
        tables |= {f"w{i}": rng.normal(size=(n_out, n_in)), f"b{i}": rng.normal(size=n_out) + lift}
        body += f"h{i} = Gemm <transB = 1> ({x}, w{i}, b{i}) r{i} = Relu (h{i}) "
        x = f"r{i}"
    body += f"y = Gemm <transB = 1> ({x}, w3, b3)"
    tables |= {"w3": rng.normal(size=(2, sizes[3])), "b3": rng.normal(size=2)}
    arrays: dict[str, Any] = {k: v.astype(np.float32) for k, v in tables.items()}
    model = net(body, f"float[N,{sizes[0]}] x", "float[N,2] y", **arrays)
    done = run_pass(NAME, model, "-1:1", tolerance=0.1)
    if set(done.report.deviations) - {"y"} or "Constant" in done.ops or "Expand" in done.ops:
        return  # deviations of layers in between are carried on by the pipeline
    bound = 4 * done.deviation + 4 * done.report.rounding
    for _ in range(3):
        point = [Fraction(float(v)) for v in rng.choice([-1.0, 1.0, 0.25], size=sizes[0])]
        for a, b in zip(exact(model, point), exact(done.model, point), strict=True):
            assert abs(a - b) <= bound


def cheaper(model: onnx.ModelProto, done: Done, shape: tuple[int, ...]) -> None:
    before, after = (cost(m, {"x": shape}) for m in (model, done.model))
    assert after.params <= before.params
    assert after.macs <= before.macs
    if done.report.modified:
        assert after.params < before.params


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_random_networks_with_planted_active_layers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(1, 10, int(rng.integers(3, 6)))]
    body, x = "", "x"
    tables: dict[str, Any] = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        lift = float(rng.choice([0.0, 3.0 * 6**i]))
        tables |= {f"w{i}": rng.normal(size=(n_in, n_out)), f"b{i}": rng.normal(size=n_out) + lift}
        body += f"h{i} = Gemm ({x}, w{i}, b{i}) r{i} = {rng.choice(['Relu', 'LeakyRelu'])} (h{i}) "
        x = f"r{i}"
    arrays: dict[str, Any] = {k: v.astype(np.float32) for k, v in tables.items()}
    model = net(body, f"float[N,{sizes[0]}] x", f"float[N,{sizes[-1]}] {x}", **arrays)
    scale = float(
        max(1.0, *(np.abs(run(model, {"x": p})[0]).max() for p in rng.normal(size=(4, 1, sizes[0])).astype(np.float32)))
    )
    cheaper(model, settle(NAME, model, "-1:1", tolerance=1e-4 * scale), (1, sizes[0]))
    result = optimize(model, "-1:1", goal="size")
    points = rng.uniform(-1, 1, (32, sizes[0])).astype(np.float32)
    points[:8] = np.sign(points[:8])
    np.testing.assert_allclose(
        run(result.model, {"x": points})[0], run(model, {"x": points})[0], rtol=0, atol=1e-4 * scale
    )


@pytest.mark.skipif(not MODELS.exists(), reason="the trained models lie in shared/models beside the repository")
def test_a_trained_model_around_one_image_collapses() -> None:
    """Close to a point no unit switches: the classifier is one affine map."""
    path = MODELS / "mnist_2x100_l1-2e-4_s10.onnx"
    model = onnx.load(path)
    name = model.graph.input[0].name
    result = optimize(model, f"{name}=0.3:0.3001", goal="size", tolerance=1e-3)
    assert [node.op_type for node in result.model.graph.node].count("Gemm") == 1
    assert result.report["after"]["params"] <= 784 * 10 + 10
