"""Whole networks, branches and gates that are constant."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune import optimize
from onnxprune.graph.cost import cost
from tests.helpers import run
from tests.passes.support import ints, net, run_pass, taps, unchanged

NAME = "collapse_linear"
DENSE = "h = Gemm (x, w, b) r = Relu (h) y = Gemm (r, v, c)"
DEAD: dict[str, Any] = {"w": [[1, 2], [3, 4]], "b": [-10, -20], "v": [[1, 2, 3], [4, 5, 6]], "c": [0.5, -1.5, 7]}
CONV = "h = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu (h) y = Conv (r, v, c)"
DEAD_CONV: dict[str, Any] = {"w": taps([[1, 2]], 3), "b": [-100], "v": taps([[1], [2]], 3), "c": [3, 4]}


def made_of(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_dead_network_is_its_last_bias() -> None:
    """7 = the bias of the last output; the batch is taken from the input."""
    done = run_pass(NAME, net(DENSE, "float[N,2] x", "float[N,3] y", **DEAD), "-1:1")
    assert done.ops == ["Shape", "Gather", "Concat", "Expand"]
    assert (done.deviation, done.report.needed_domain) == (0, True)
    assert done.report.removed == {"h": [0, 1], "y": [0, 1, 2]}
    assert [v.name for v in done.model.graph.input] == ["x"]
    for batch in (1, 5):
        found = run(done.model, {"x": np.zeros((batch, 2), np.float32)})[0]
        assert found.tolist() == [[0.5, -1.5, 7]] * batch
    assert not run_pass(NAME, done.model, "-1:1").report.modified


def test_a_fixed_batch_needs_no_sizes() -> None:
    one = run_pass(NAME, net(DENSE, "float[1,2] x", "float[1,3] y", **DEAD), "-1:1")
    assert one.ops == ["Constant"]
    assert run_pass(NAME, net(DENSE, "float[4,2] x", "float[4,3] y", **DEAD), "-1:1").ops == ["Expand"]
    assert not run_pass(NAME, one.model, "-1:1").report.modified


def test_without_a_domain_only_what_is_always_constant() -> None:
    unchanged(NAME, net(DENSE, "float[N,2] x", "float[N,3] y", **DEAD))
    tables = {**DEAD, "w": [[0, 0], [0, 0]]}
    done = run_pass(NAME, net(DENSE, "float[N,2] x", "float[N,3] y", **tables))
    assert done.report.modified
    assert not done.report.needed_domain


def test_a_constant_that_is_not_the_bias() -> None:
    """Hidden units 2 and 3 wherever x is: y = 2 + 4 * 3 + 0.5, and so on; the rounding is accounted for."""
    tables = {**DEAD, "w": [[0, 0], [0, 0]], "b": [2, 3]}
    done = run_pass(NAME, net(DENSE, "float[N,2] x", "float[N,3] y", **tables), "-1:1")
    assert run(done.model, {"x": np.ones((1, 2), np.float32)})[0].tolist() == [[14.5, 17.5, 31]]
    assert done.deviation < 1e-12


def test_dead_convolutions_of_a_known_size() -> None:
    done = run_pass(NAME, net(CONV, "float[N,2,5,5] x", "float[N,2,3,3] y", **DEAD_CONV), "-1:1")
    assert done.ops == ["Shape", "Gather", "Concat", "Expand"]
    found = run(done.model, {"x": np.zeros((3, 2, 5, 5), np.float32)})[0]
    assert found.shape == (3, 2, 3, 3)
    assert (found[:, 0] == 3).all()
    assert (found[:, 1] == 4).all()


def test_sizes_that_no_input_tells_keep_the_network() -> None:
    unchanged(NAME, net(CONV, "float[N,2,H,W] x", "float[N,2,K,L] y", **DEAD_CONV), "-1:1")


def test_a_pooled_head_hides_unknown_sizes() -> None:
    body = f"{CONV} g = GlobalAveragePool (y) f = Flatten (g) z = Gemm (f, u, d)"
    tables = {**DEAD_CONV, "u": [[1, 0], [0, 1]], "d": [1, 1]}
    done = run_pass(NAME, net(body, "float[N,2,H,W] x", "float[N,2] z", **tables), "-1:1")
    assert done.ops == ["Shape", "Gather", "Concat", "Expand"]
    assert run(done.model, {"x": np.zeros((2, 2, 6, 7), np.float32)})[0].tolist() == [[4, 5]] * 2


def test_only_the_constant_output_is_replaced() -> None:
    body = f"{DENSE} z = Gemm (h, v, c)"
    done = run_pass(NAME, net(body, "float[N,2] x", "float[N,3] y, float[N,3] z", **DEAD), "-1:1")
    assert done.ops[0] == "Gemm"
    assert "Relu" not in done.ops
    assert done.report.removed == {"y": [0, 1, 2]}


def test_outputs_that_share_a_trunk() -> None:
    body = f"{DENSE} z = Gemm (r, v, b3)"
    model = net(body, "float[N,2] x", "float[N,3] y, float[N,3] z", **DEAD, b3=[1, 2, 3])
    done = run_pass(NAME, model, "-1:1")
    assert set(done.ops) == {"Shape", "Gather", "Concat", "Expand"}
    assert set(done.report.removed) == {"h", "y", "z"}


BRANCH = "h = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu (h) k = Conv (r, v, c)"
INNER: dict[str, Any] = {"w": taps([[1, 2]], 3), "b": [-100], "v": taps([[1], [2]], 1), "c": [3, 4]}
IMAGE: dict[str, Any] = {"inputs": "float[N,2,6,7] x", "outputs": "float[N,2,6,7] y"}


@pytest.mark.parametrize("op", ["Add (x, k)", "Add (k, x)", "Sub (x, k)", "Sub (k, x)", "Mul (x, k)"])
def test_a_dead_branch(op: str) -> None:
    model = net(f"{BRANCH} y = {op}", **IMAGE, **INNER)
    done = run_pass(NAME, model, "-1:1")
    assert len(done.ops) == 1
    (constant,) = (onnx.numpy_helper.to_array(t) for t in done.model.graph.initializer)
    assert constant.shape == (1, 2, 1, 1)
    assert constant.reshape(-1).tolist() == [3, 4]


def test_a_branch_that_may_widen_the_sum_stays() -> None:
    """With unknown sizes nobody says that x alone has the shape of the sum."""
    unchanged(NAME, net(f"{BRANCH} y = Add (x, k)", "float[N,2,H,W] x", "float[N,2,K,L] y", **INNER), "-1:1")


def test_a_constant_gate() -> None:
    """Sigmoid of 0 is one half; what the gate was made of goes."""
    body = """
        p = GlobalAveragePool (x) s = Conv (p, w, b) r = Relu (s) e = Conv (r, v, c) g = Sigmoid (e) y = Mul (x, g)
    """
    tables: dict[str, Any] = {"w": taps([[1, 2]]), "b": [-100], "v": taps([[1], [2]]), "c": [0, 0]}
    done = run_pass(NAME, net(body, **IMAGE, **tables), "-1:1")
    assert done.ops == ["Mul"]
    assert 0 <= done.deviation < 1e-12


@pytest.mark.parametrize(
    "tail",
    ["y = Div (x, k)", "y = Min (x, k)", "s = Add (k, one) t = Add (s, x) y = Concat <axis = 1> (t, k)"],
    ids=["divisor", "minimum", "read elsewhere, too"],
)
def test_constants_nobody_takes_stay(tail: str) -> None:
    outputs = "float[N,4,6,7] y" if "Concat" in tail else IMAGE["outputs"]
    unchanged(NAME, net(f"{BRANCH} {tail}", IMAGE["inputs"], outputs, **INNER), "-1:1")


def test_protected_units_keep_a_dead_network() -> None:
    model = net(DENSE, "float[N,2] x", "float[N,3] y", **DEAD)
    assert not run_pass(NAME, model, "-1:1", protected={"h": frozenset({1})}).report.modified


def test_what_is_constant_already_stays() -> None:
    body = "s = Shape (x) n = Gather (s, zero1) q = Concat <axis = 0> (n, three1) y = Expand (k, q)"
    unchanged(NAME, net(body, outputs="float[N,3] y", zero1=ints(0), three1=ints(3), k=[[1, 2, 3]]))


@pytest.mark.parametrize("shape", ["float[N,2] x", "float[1,2] x"])
def test_the_whole_pipeline_ends_with_the_constant(shape: str) -> None:
    model = net(DENSE, shape, shape.replace("2] x", "3] y"), **DEAD)
    result = optimize(model, "-1:1", goal="size")
    assert not {"Gemm", "Relu"} & set(made_of(result.model))
    assert result.report["after"]["macs"] == 0
    assert result.report["units"]["removed"] == 5
    again = optimize(result.model, "-1:1", goal="size")
    assert not again.modified


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_random_networks_with_a_dead_layer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel, size = int(rng.choice([1, 3])), int(rng.integers(4, 8))
    hidden, n_in = (int(n) for n in rng.integers(1, 5, 2))
    body = "h = Conv (x, w, b) r = Relu (h) k = Conv (r, v, c) t = LeakyRelu (k) f = Flatten (t) y = Gemm (f, u, d)"
    places = (size - kernel + 1) ** 2
    tables: dict[str, Any] = {
        "w": rng.normal(size=(hidden, n_in, kernel, kernel)),
        "b": np.full(hidden, -100.0),
        "v": rng.normal(size=(2, hidden, 1, 1)),
        "c": rng.normal(size=2),
        "u": rng.normal(size=(2 * places, 3)),
        "d": rng.normal(size=3),
    }
    arrays = {k: v.astype(np.float32) for k, v in tables.items()}
    model = net(body, f"float[N,{n_in},{size},{size}] x", "float[N,3] y", **arrays)
    done = run_pass(NAME, model, "-1:1", tolerance=1e-4)
    assert "Gemm" not in done.ops
    before, after = (cost(m, {"x": (1, n_in, size, size)}) for m in (model, done.model))
    assert after.params <= before.params
    assert after.macs == 0
