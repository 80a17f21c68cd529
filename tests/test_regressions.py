"""Bugs that were found once, each with the smallest model that showed it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import optimize
from onnxprune.bounds import interval_bounds
from onnxprune.bounds.deviation import carry
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from tests.helpers import initializer, run
from tests.passes.support import as_domain, ints, net, run_pass, settle

TWO = "float[N,2] y"


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_tidy_keeps_a_neutral_operation_that_names_a_graph_output(op: str) -> None:
    """The constant came first and the node could not be bypassed: ``zero + x`` was left behind as ``x + x``."""
    neutral = "zero" if op == "Add" else "one"
    run_pass("tidy", net(f"y = {op} ({neutral}, x) i = Identity (x) z = Relu (i)", outputs=f"{TWO}, float[N,2] z"))


def test_tidy_reads_sizes_out_of_tables_row_by_row() -> None:
    """A whole row of sizes, gathered from a table with one row, was taken for its first entry."""
    body = "s = Shape (x) u = Unsqueeze (s, a) g = Gather <axis = 0> (u, i) r = Reshape (x, g) y = Relu (r)"
    three = "float[N,2,H]"
    run_pass("tidy", net(body, f"{three} x", f"{three} y", a=ints(0), i=np.array(0)))


def test_a_zero_in_a_reshape_target_follows_the_axis_that_it_copies() -> None:
    """The 0 copies the size of an input axis that ends up elsewhere; when that one shrank, so did the copy."""
    w = np.ones((8, 3, 1, 1), np.float32)
    v = np.ones((8, 2), np.float32)
    v[[3, 5]] = 0.0
    body = """
        h = Conv (x, w) r = Relu (h) q = Reshape (r, target)
        t = Transpose <perm = [1, 2, 0]> (q) y = MatMul (t, v)
    """
    run_pass("remove_unused", net(body, "float[1,3,8,2] x", "float[8,2,2] y", w=w, v=v, target=ints(8, 0, 2)))


def test_absorbed_variation_is_small_against_what_the_layer_computes() -> None:
    """Units of size 1e-13 count for nothing beside weights of 1, but not when all units of the layer are that small."""
    body = "s = Sigmoid (x) h = Gemm (s, a) y = Gemm (h, b)"
    small, large = np.eye(2, dtype=np.float32) * 1e-13, np.eye(2, dtype=np.float32) * 1e13
    run_pass("fold_constant", net(body, outputs=TWO, a=small.astype(np.float32), b=large.astype(np.float32)))


def test_absorbed_units_are_not_hidden_by_larger_outputs() -> None:
    """The same beside outputs of 1e5: the tolerance of the validation is that of the largest entry."""
    body = "s = Sigmoid (x) h = Gemm (s, a) u = Gemm (h, b) v = Mul (x, c) y = Concat <axis = 1> (u, v)"
    a, b = (np.eye(2, dtype=np.float32) * np.float32(size) for size in (1e-13, 1e13))
    model = net(body, outputs="float[N,4] y", a=a, b=b, c=np.array(1e5, np.float32))
    result = optimize(model, goal="size", align=1).model
    x = np.array([[3, -3], [-8, 8]], np.float32)
    np.testing.assert_allclose(run(result, {"x": x})[0][:, :2], run(model, {"x": x})[0][:, :2], atol=1e-3)


def test_merged_units_keep_outputs_that_are_small_beside_others() -> None:
    """One output is 1e10 times the other: the smaller one was lost below the cut-off for singular values."""
    model = net(
        "h = Gemm (x, a, b) r = Relu (h) y = Gemm (r, c)",
        outputs=TWO,
        a=[[1, 0, 1], [0, 1, 1]],
        b=[2.0, 2.0, 3.0],
        c=[[1e6, 1e-4], [2e6, -1e-4], [1e6, 3e-4]],
    )
    result = optimize(model, "-1:1", goal="size", align=1).model
    x = np.array([[-1, 1], [1, -1], [0.5, 0.5]], np.float32)
    np.testing.assert_allclose(run(result, {"x": x})[0][:, 1], run(model, {"x": x})[0][:, 1], rtol=1e-2)


def test_tidied_reshapes_take_empty_batches() -> None:
    """A computed size became -1, which ONNX Runtime refuses when another axis is empty."""
    body = """
        s = Shape (x) n = Gather (s, i0) h = Gather (s, i2) e = Mul (h, eight)
        q = Concat <axis = 0> (n, e) r = Reshape (x, q) y = Relu (r)
    """
    model = net(body, "float[N,8,H] x", "float[N,K] y", i0=ints(0), i2=ints(2), eight=ints(8))
    result = run_pass("tidy", model).model
    assert run(result, {"x": np.zeros((0, 8, 3), np.float32)})[0].shape == (0, 24)


def _merging() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    a, c = rng.normal(size=(4, 12)).astype(np.float32), rng.normal(size=(12, 2)).astype(np.float32)
    b = np.full(12, 50.0, np.float32)
    return net("h = Gemm (x, a, b) r = Relu (h) y = Gemm (r, c)", "float[N,4] x", TWO, a=a, b=b, c=c)


def test_merge_dependent_leaves_protected_units() -> None:
    """Units that are to stay were merged as long as one unit of the layer was free to go."""
    model = _merging()
    name = ChannelGroups(Graph(model)).units[0].node.name
    keep = frozenset(range(2, 12, 2))
    done = run_pass("merge_dependent", model, "-1:1", protected={name: keep}, tolerance=1e-3)
    assert not keep & set(done.report.removed.get(name, []))


@pytest.mark.parametrize("align", [4, 8])
def test_merged_layers_are_aligned(align: int) -> None:
    result = optimize(_merging(), "-1:1", goal="size", align=align, skip=["collapse_linear"]).model
    assert initializer(result, "a").shape[1] % align == 0


def test_an_activation_is_not_idle_when_rounding_crosses_its_threshold() -> None:
    """In real numbers the sum is positive, in float32 it is negative at x = 1, and the root of that is no number."""
    ulp = 2.0**-23
    model = net(
        "a = Add (x, c) b = Add (a, c) d = Add (b, c) h = Add (d, e) r = Relu (h) y = Sqrt (r)",
        "float[N,1] x",
        c=np.array(0.4 * ulp, np.float32),
        e=np.array(-1 - ulp, np.float32),
    )
    done = settle("drop_idle_activation", model, "1:2")
    assert np.isfinite(run(done.model, {"x": np.ones((1, 1), np.float32)})[0]).all()


def test_a_pass_that_was_rolled_back_is_not_run_again_for_an_aligned_result() -> None:
    """It ran unchecked then, and the final check could only give up the whole run."""
    rng, ulp = np.random.default_rng(0), 2.0**-23
    a = rng.normal(size=(2, 16)).astype(np.float32)
    a[:, :5] = 0.0
    model = net(
        """
        o = Add (x, c) p = Add (o, c) q = Add (p, c) h = Add (q, e) r = Relu (h) y = Sqrt (r)
        g = Gemm (x, a) s = Relu (g) z = Gemm (s, b)
        """,
        outputs=f"{TWO}, float[N,2] z",
        a=a,
        b=rng.normal(size=(16, 2)).astype(np.float32),
        c=np.array(0.4 * ulp, np.float32),
        e=np.array(-1 - ulp, np.float32),
    )
    result = optimize(model, "1:2", goal="size", align=4)
    assert all(np.isfinite(value).all() for value in run(result.model, {"x": np.ones((1, 2), np.float32)}))


def test_a_deviation_passes_through_what_a_branch_captures() -> None:
    """The branches read ``g`` by its name, not as an input of the If."""
    one, other = "t () => (float[N,2] o) { o = Relu (g) }", "e () => (float[N,2] p) { p = Neg (g) }"
    branches = f"then_branch = {one}, else_branch = {other}"
    body = f"g = Gemm (x, w) m = ReduceMax <keepdims = 0> (x) c = Greater (m, zero) y = If (c) <{branches}>"
    model = net(body, outputs=TWO, w=[[1, 0], [0, 1]])
    graph = Graph(model)
    assert carry(graph, {"g": 1e-3}, Facts(graph, as_domain("-1:1", model)).bounds) >= 1e-3


def test_the_slope_of_selu_follows_its_attributes() -> None:
    model = net("g = Gemm (x, w) y = Selu <alpha = 50.0, gamma = 1.0> (g)", outputs=TWO, w=[[1, 0], [0, 1]])
    graph = Graph(model)
    assert carry(graph, {"g": 1e-6}, Facts(graph, as_domain("-1:1", model)).bounds) >= 5e-5


@pytest.mark.parametrize("body", ["y = ReduceSum <keepdims = 1> (x, axes)", "y = MatMul (x, w)"])
def test_sums_of_integers_wrap_around(body: str) -> None:
    w = np.array([[2], [2]], np.int32)
    model = net(body, "int32[N,2] x", "int32[N,1] y", axes=ints(1), w=w)
    bounds = interval_bounds(Graph(model), as_domain("1500000000:1500000000", model))["y"]
    (y,) = run(model, {"x": np.full((1, 2), 1_500_000_000, np.int32)})
    assert (bounds.lower <= y).all()
    assert (y <= bounds.upper).all()


def test_new_constants_do_not_take_the_name_of_another_tensor() -> None:
    """``a_Slice_1`` is a tensor of this model; a Slice that is renumbered gave its new start that name."""
    body = """
        h = Gemm <transB = 1> (x, w, b) r = Relu (h) a = Slice (r, i0, i2, i1) y = Gemm (a, v) a_Slice_1 = Relu (x)
    """
    table = [[0, 0], [0, 1], [1, 1], [2, 3]]
    model = net(
        body,
        outputs=f"{TWO}, float[N,2] a_Slice_1",
        w=table,
        b=[0.0] * 4,
        v=[[1, 1], [1, -1]],
        i0=ints(0),
        i1=ints(1),
        i2=ints(2),
    )
    run_pass("remove_inactive", model)
