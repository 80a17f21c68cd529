"""Merging by the rows themselves, and merging channels of convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune import optimize
from onnxprune.errors import InputError
from onnxprune.graph.cost import cost
from onnxprune.pass_registry import select
from tests.passes.support import Done, net, run_pass, taps, unchanged

ROWS = "merge_dependent{rule=rows}"
PRODUCT = "merge_dependent{rule=product}"
BODY = "h = Gemm <transB = 1> (x, w, b) r = Relu (h) y = Gemm <transB = 1> (r, v, c)"
PAIR: dict[str, Any] = {"w": [[1, 0], [0, 1], [1, 1], [2, 1]], "b": [5, 5, 5, 9], "v": [[1, 2, 3, 4]], "c": [7]}
MODELS = Path(__file__).resolve().parents[3] / "shared" / "models" / "exact" / "mnist_trained"


def units(done: Done, name: str = "w") -> int:
    return next(int(t.dims[0]) for t in done.model.graph.initializer if t.name == name)


def test_rows_of_rank_two_keep_two_units_where_the_product_keeps_one() -> None:
    """Four rows in the plane and one output: rank W = 2, rank of the product 1."""
    model = net(BODY, **PAIR)
    assert units(run_pass(ROWS, model, "-1:1")) == 2
    assert units(run_pass(PRODUCT, model, "-1:1")) == 1
    assert units(run_pass("merge_dependent", model, "-1:1")) == 1


def test_the_kept_rows_are_rows_of_the_model() -> None:
    """y = 12 x1 + 9 x2 + 73 whichever two units stay; they keep their weights and biases."""
    done = run_pass(ROWS, net(BODY, **PAIR), "-1:1")
    weights, bias = done.layer("h")
    given_rows = {tuple(row): b for row, b in zip(PAIR["w"], PAIR["b"], strict=True)}
    assert all(given_rows[tuple(row)] == b for row, b in zip(weights, bias, strict=True))
    (column,), (shift,) = done.layer("y")
    assert np.allclose(np.array(column) @ weights, [12, 9], rtol=0, atol=1e-5)
    assert shift + np.dot(column, bias) == pytest.approx(73, abs=1e-4)
    assert done.report.merged == {next(iter(done.report.removed)): 2}
    assert done.deviation < 1e-5


def test_independent_rows_stay() -> None:
    model = net(BODY, "float[N,4] x", w=np.eye(4, dtype=np.float32), b=[5] * 4, v=[[1, 2, 3, 4]], c=[0])
    assert not run_pass(ROWS, model, "-1:1").report.modified
    assert run_pass(PRODUCT, model, "-1:1").report.modified


@pytest.mark.parametrize("gap", [1e-4, 3e-6], ids=["nearly parallel", "almost parallel"])
def test_rows_that_are_nearly_dependent_stay(gap: float) -> None:
    """Neither in the span of others nor independent enough to express others by them."""
    rows = [[1, 0, 0], [1, gap, 0], [0, 0, 1]]
    model = net(BODY, "float[N,3] x", w=rows, b=[5] * 3, v=[[1, -1, 1]], c=[0])
    assert not run_pass(ROWS, model, "-1:1").report.modified


def test_large_coefficients_are_refused() -> None:
    """The last row is 1500 times the difference of two that point almost the same way."""
    rows = [[1, 0], [1, 1 / 1024], [0, 1]]
    model = net(BODY, w=rows, b=[5] * 3, v=[[1, 1, 1]], c=[0])
    done = run_pass(ROWS, model, "-1:1")
    assert units(done) == 2
    assert [0, 1] in done.layer("h")[0], "the well-conditioned pair is kept"


def test_protected_units_stay() -> None:
    keep = frozenset({0, 3})
    done = run_pass(ROWS, net(BODY, **PAIR), "-1:1", protected={"h": keep})
    assert not keep & set(done.report.removed.get("h", []))
    unchanged_all = run_pass(ROWS, net(BODY, **PAIR), "-1:1", protected={"h": frozenset(range(4))})
    assert not unchanged_all.report.modified


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(InputError, match="best"):
        select("merge_dependent{rule=best}")


def test_a_bias_that_has_to_be_added_must_pay() -> None:
    """Two units become one, which spares a row and a column of 4 weights, and takes 1 + 3 biases."""
    body = "h = Gemm (x, w) r = Relu (h) y = Gemm (r, v)"
    columns = [[1, 2, 3], [3, 2, 1]]
    unchanged("merge_dependent", net(body, "float[N,1] x", "float[N,3] y", w=[[1, 2]], v=columns), "1:2")
    model = net(body, "float[N,1] x", "float[N,3] y", w=[[1, 2, 3]], v=[*columns, [1, 1, 1]])
    assert units(run_pass("merge_dependent", model, "1:2"), "v") == 1


CONV = "h = Conv{p} (x, w, b) r = Relu (h) y = Conv{q} (r, v, c)"


def conv_net(first: Any, second: Any, *, p: str = "", q: str = "", bias: float = 100.0) -> onnx.ModelProto:
    """Two convolutions; the biases of the first make all its units stably active."""
    n_out, n_in = first.shape[0], first.shape[1]
    tables = {"w": first, "b": np.full(n_out, bias, np.float32), "v": second, "c": np.ones(len(second), np.float32)}
    body = CONV.format(p=f" <{p}>" if p else "", q=f" <{q}>" if q else "")
    return net(body, f"float[N,{n_in},9,9] x", f"float[N,{len(second)},K,L] y", **tables)


def drawn(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rule", ["product", "rows"])
def test_channels_of_a_1x1_convolution_merge(rule: str) -> None:
    """Six channels that see two inputs: rank 2."""
    model = conv_net(drawn(0, 6, 2, 1, 1), drawn(1, 5, 6, 3, 3))
    done = run_pass(f"merge_dependent{{rule={rule}}}", model, "-1:1", tolerance=2e-3)
    assert units(done) == 2
    assert done.report.needed_domain


def test_channels_by_hand() -> None:
    """Rows (1, 0), (0, 1), (1, 1) read with weights 1, 2, 3: together 4 x1 + 5 x2, one channel."""
    model = conv_net(taps([[1, 0], [0, 1], [1, 1]]), taps([[1, 2, 3]]))
    done = run_pass("merge_dependent", model, "-1:1", tolerance=1e-3)
    (row,), (offset,) = done.layer("h")
    ((column,),), (shift,) = done.layer("y")
    assert np.allclose(np.array(row) * column, [4, 5], atol=1e-5)
    assert shift + column * offset == pytest.approx(601, abs=1e-3)


def test_a_padded_first_convolution_counts_all_its_taps() -> None:
    """One output channel read at one tap: of 9 channels with 9 taps each, one is left, padding included."""
    model = conv_net(drawn(2, 9, 1, 3, 3), drawn(3, 1, 9, 1, 1), p="pads = [1, 1, 1, 1]", bias=60)
    done = run_pass("merge_dependent", model, "-1:1", tolerance=2e-3)
    assert units(done) == 1


def test_taps_of_a_reader_are_outputs_of_their_own() -> None:
    """One output channel with four taps sees up to four combinations."""
    model = conv_net(drawn(4, 8, 3, 3, 3), drawn(5, 1, 8, 2, 2), bias=60)
    assert units(run_pass("merge_dependent", model, "-1:1", tolerance=2e-3)) == 4


@pytest.mark.parametrize(
    ("p", "q", "shape"),
    [("", "pads = [1, 1, 1, 1]", (1, 8, 3, 3)), ("", "group = 2", (2, 4, 1, 1)), ("group = 2", "", (2, 8, 1, 1))],
    ids=["padded reader", "grouped reader", "grouped layer"],
)
def test_other_convolutions_stay(p: str, q: str, shape: tuple[int, ...]) -> None:
    first = drawn(6, 8, 1, 1, 1) if "group" in p else drawn(6, 8, 2, 1, 1)
    model = conv_net(first, drawn(7, *shape), p=p, q=q)
    if "group" in p:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    unchanged("merge_dependent", model, "-1:1")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), rule=st.sampled_from(["product", "rows"]))
def test_random_convolutions_keep_their_outputs(seed: int, rule: str) -> None:
    rng = np.random.default_rng(seed)
    kernel, other = (int(k) for k in rng.integers(1, 4, 2))
    hidden, n_in, out = (int(n) for n in rng.integers(1, 9, 3))
    rank = int(rng.integers(1, hidden + 1))
    planted = rng.integers(-2, 3, (hidden, rank)) @ rng.normal(size=(rank, n_in * kernel**2)).astype(np.float32)
    first = planted.reshape(hidden, n_in, kernel, kernel).astype(np.float32)
    bias = float(np.abs(first).sum(axis=(1, 2, 3)).max() * rng.uniform(0.7, 1.2))
    p = "pads = [1, 1, 1, 1], strides = [2, 1]" if rng.random() < 0.5 and kernel > 1 else ""
    model = conv_net(first, rng.normal(size=(out, hidden, other, other)).astype(np.float32), p=p, bias=bias)
    scale = bias * hidden * other**2
    done = run_pass(f"merge_dependent{{rule={rule}}}", model, "-1:1", tolerance=1e-5 * max(scale, 1.0))
    before, after = (cost(m, {"x": (1, n_in, 9, 9)}) for m in (model, done.model))
    assert after.params <= before.params
    assert after.macs <= before.macs


@pytest.mark.skipif(not MODELS.exists(), reason="the trained models lie in shared/models beside the repository")
@pytest.mark.parametrize("name", ["mnist_2x100_l1-2e-4_s10", "mnist_2x400_l1-1.25e-4_s10"])
def test_on_trained_models_the_product_rank_is_the_smaller_one(name: str) -> None:
    left = {}
    for rule in ("product", "rows"):
        passes = f"tidy,remove_inactive,fold_constant,merge_dependent{{rule={rule}}}"
        report = optimize(str(MODELS / f"{name}.onnx"), "0:1", goal="size", passes=passes).report
        assert not [p["rolled_back"] for p in report["passes"] if p["rolled_back"]]
        left[rule] = report["units"]["total"] - report["units"]["removed"]
    assert left["product"] < left["rows"]
