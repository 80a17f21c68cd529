"""The stages together: in order, within the budget, sound wherever they stop, and loud when a proof is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import inspect, optimize
from onnxprune.bounds import Bounds
from onnxprune.domain import Box, Constraint, Domain
from onnxprune.errors import ProofError
from onnxprune.operators import Interval
from onnxprune.stability import State, cascade
from onnxprune.stability.solving import Found
from tests.helpers import command, conv, dense, parse
from tests.stability.planted import BOX, model, proofs, states

ORDER = ["interval", "linear", "split", "lp", "mip"]
STABLE = {State.INACTIVE, State.ACTIVE, State.CONSTANT}
METHODS = ["cascade", "leo", "single"]


def box(**ends: tuple[Any, Any]) -> Domain:
    return Domain({name: Box(np.asarray(low, float), np.asarray(high, float)) for name, (low, high) in ends.items()})


def only(net: onnx.ModelProto, domain: Any, layer: int = -2, **plan: Any) -> list[State]:
    """States of the last hidden layer."""
    found = list(states(net, proofs(net, domain, budget=20.0, **plan)).values())
    return list(found[layer])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(2))
def test_every_method_proves_the_planted_units(seed: int, method: str) -> None:
    net = model(seed)
    expected = states(net, proofs(net, BOX))
    assert sum(state is State.INACTIVE for layer in expected.values() for state in layer) >= 6
    assert states(net, proofs(net, BOX, method=method)) == expected


@pytest.mark.parametrize("method", METHODS)
def test_stages_come_in_order_and_only_tighten(method: str) -> None:
    net = model(0)
    found = proofs(net, BOX, method=method)
    methods = [stage.method for stage in found.stages]
    assert methods == sorted(methods, key=ORDER.index)
    assert methods[0] == "interval"
    assert {stage.trust for stage in found.stages if stage.method != "mip"} == {"certified"}
    assert {stage.trust for stage in found.stages if stage.method == "mip"} <= {"solver"}
    for before, after in zip(found.stages, found.stages[1:], strict=False):
        for name, bounds in after.bounds.items():
            assert (bounds.lower >= before.bounds[name].lower).all()
            assert (bounds.upper <= before.bounds[name].upper).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("trust", ["certified", "solver"])
def test_each_proved_unit_is_counted_once(method: str, trust: str) -> None:
    report = inspect(model(1), BOX, method=method, trust=trust)
    for entry in [*report["layers"], {**report["units"], **report["proof"]}]:
        proved = entry["inactive"] + entry["active"] + entry["constant"]
        assert sum(entry["by_method"].values()) == proved
        assert sum(entry["trust"].values()) == proved
        assert entry["trust"]["solver"] == entry["by_method"]["mip"]
    assert (report["proof"]["trust"]["solver"] > 0) == (method != "cascade" and trust == "solver")
    assert (report["units"]["undecided"] > 0) == (method != "cascade" and trust == "certified")


@pytest.mark.parametrize("method", METHODS)
def test_the_budget_is_kept(method: str) -> None:
    net = model(3, inputs=40, width=24, layers=3, tries=2)
    began = time.perf_counter()
    found = proofs(net, BOX, method=method, budget=2.0)
    assert time.perf_counter() - began < 2.0 + 6.0  # a slow machine may take long over one step
    assert found.seconds <= time.perf_counter() - began


def test_without_a_budget_there_are_bounds_alone() -> None:
    net = model(0)
    found = proofs(net, BOX, budget=0.0)
    assert {stage.method for stage in found.stages} <= {"interval", "linear"}
    assert found.seconds < 5.0


def test_without_a_domain_nothing_is_searched() -> None:
    net = model(0)
    found = proofs(net, Domain.everything())
    assert [stage.method for stage in found.stages] == ["interval"]


class Patience:
    """True from the n-th question on."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("calls", [0, 1, 3, 8, 15, 30, 60])
def test_a_stop_in_the_middle_leaves_what_is_sound(calls: int, method: str) -> None:
    net = model(0)
    whole = states(net, proofs(net, BOX))
    partial = states(net, proofs(net, BOX, method=method, stopped=Patience(calls)))
    for name, found in partial.items():
        for state, final in zip(found, whole[name], strict=True):
            assert state in (final, State.UNDECIDED)


def test_results_grow_with_patience() -> None:
    net = model(0)
    proved = []
    for calls in (0, 20, 10_000):
        found = states(net, proofs(net, BOX, stopped=Patience(calls)))
        proved.append(sum(state in STABLE for layer in found.values() for state in layer))
    assert proved == sorted(proved)
    assert proved[0] < proved[-1]


def test_a_stopped_run_hands_out_what_it_has() -> None:
    result = optimize(model(0), BOX, goal="size", align=1, stopped=Patience(40))
    assert result.report["units"]["total"] == sum(result.report["units"][state.value] for state in State)
    assert result.report["validation"]["samples"] > 0


HALF = """
    h = Gemm <transB = 1> (x, w1, b1)
    r = Relu (h)
    g = Gemm <transB = 1> (r, w2, b2)
    s = Relu (g)
    y = Gemm <transB = 1> (s, w3)
"""


def half(second: Any, bias: Any) -> onnx.ModelProto:
    """Behind relu(x0), relu(x1), relu(x0 + x1) one unit."""
    arrays = {
        "w1": [[1, 0], [0, 1], [1, 1]],
        "b1": [0, 0, 0],
        "w2": [second, [1, 1, 1]],
        "b2": [bias, 0],
        "w3": [[1, 1]],
    }
    return parse(
        HALF, "float[N,2] x", "float[N,1] y", {name: np.array(v, np.float32) for name, v in arrays.items()}
    )


@pytest.mark.parametrize("method", METHODS)
def test_linear_constraints_help(method: str) -> None:
    """The unit relu(r0 + r1 - 1.5) needs that x0 + x1 <= 1."""
    net = half([1, 1, 0], -1.5)
    ends = {"x": Box(np.zeros(2), np.ones(2))}
    row = Constraint((("x", 0, 1.0), ("x", 1, 1.0)), 1.0)
    assert only(net, Domain(ends), method=method)[0] in (State.UNSTABLE, State.UNDECIDED)
    constrained = only(net, Domain(ends, (row,)), method=method)
    assert constrained[0] is State.INACTIVE
    assert constrained[1] is State.ACTIVE


def test_what_a_constraint_forbids_is_no_witness() -> None:
    """On the box alone the unit switches; where x0 + x1 <= -1.5 no point of a search may say so."""
    net = half([0, 0, 1], -0.25)
    ends = {"x": Box(-np.ones(2), np.ones(2))}
    row = Constraint((("x", 0, 1.0), ("x", 1, 1.0)), -1.5)
    assert only(net, Domain(ends))[0] is State.UNSTABLE
    assert only(net, Domain(ends, (row,)))[0] is State.INACTIVE


TWO = """
    a = Gemm <transB = 1> (x, w1, b1)
    c = MatMul (z, v)
    h = Add (a, c)
    r = Relu (h)
    y = Gemm <transB = 1> (r, w2)
"""


@pytest.mark.parametrize("method", METHODS)
def test_several_inputs(method: str) -> None:
    arrays = {"w1": [[1, 0], [1, 1], [0, 1]], "b1": [-2, 3, 0], "v": [[1, 0, 1]], "w2": [[1, 1, 1]]}
    net = parse(
        TWO,
        "float[N,2] x, float[N,1] z",
        "float[N,1] y",
        {name: np.array(v, np.float32) for name, v in arrays.items()},
    )
    found = states(net, proofs(net, box(x=([0, 0], [1, 1]), z=([0], [0.5])), method=method, budget=20.0))
    assert State.INACTIVE in found[next(iter(found))]
    domain = ["x=0:1", "z=0:0.5"]
    report = inspect(net, domain, method=method)
    assert report["units"]["inactive"] >= 1
    result = optimize(net, domain, goal="size", align=1, method=method)
    assert result.report["units"]["removed"] >= 1


@pytest.mark.parametrize("batch", ["N", "1", "7"])
def test_the_batch_makes_no_difference(batch: str) -> None:
    net = model(0)
    dim = net.graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    if batch == "N":
        dim.dim_param = "N"
    else:
        dim.dim_value = int(batch)
    for value in net.graph.output:
        value.type.tensor_type.shape.dim[0].CopyFrom(dim)
    assert states(net, proofs(net, BOX)) == states(model(0), proofs(model(0), BOX))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sizes", ["H,W", "5,6"])
def test_convolutions_of_any_size(sizes: str, method: str) -> None:
    net = conv(inputs=f"float[N,4,{sizes}] x", outputs=f"float[N,3,{sizes}] y")
    report = inspect(net, BOX, method=method, budget=5.0, shapes={"x": (1, 4, 5, 6)})
    assert report["units"]["inactive"] >= 3  # whatever the size, the dead ones
    assert report["layers"][0]["inactive"] == 3


TOUCHING = {
    "never above 0": ([0.0, 0.0, 0.0], 0.0, {State.INACTIVE, State.ACTIVE}),
    "0 at a corner from below": ([1.0, 1.0, 0.0], -2.0, {State.INACTIVE, State.UNDECIDED}),
    "0 at a corner from above": ([-1.0, -1.0, 0.0], 2.0, {State.ACTIVE, State.UNDECIDED}),
    "always 0, but only together": ([1.0, 1.0, -1.0], 0.0, {State.INACTIVE, State.ACTIVE, State.UNDECIDED}),
}


@pytest.mark.parametrize(("row", "bias", "allowed"), TOUCHING.values(), ids=TOUCHING)
@pytest.mark.parametrize("method", METHODS)
def test_units_that_touch_0(row: list[float], bias: float, allowed: set[State], method: str) -> None:
    net = half(row, bias)
    assert only(net, box(x=([0, 0], [1, 1])), method=method)[0] in allowed


@pytest.mark.parametrize("method", METHODS)
def test_units_that_cross_0_by_a_hair_are_not_stable(method: str) -> None:
    net = half([1.0, 1.0, 0.0], -2.0 + 1e-6)
    assert only(net, box(x=([0, 0], [1, 1])), method=method)[0] not in STABLE


def shrunk(real: Callable[..., Bounds]) -> Callable[..., Bounds]:
    """Bounds that are wrong: half as wide as they should be."""

    def wrong(*args: Any, **kwargs: Any) -> Bounds:
        found = real(*args, **kwargs)
        result = {}
        for name, old in found.items():
            middle, reach = (old.upper + old.lower) / 2, (old.upper - old.lower) / 4
            known = np.isfinite(reach) & name.startswith("h")
            low, high = np.where(known, middle - reach, old.lower), np.where(known, middle + reach, old.upper)
            result[name] = Interval.of(low, high)
        return Bounds(result, found.corners)

    return wrong


@pytest.mark.parametrize("stage", ["interval_bounds", "linear_bounds"])
def test_a_wrong_bound_is_found_out(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, stage, shrunk(getattr(cascade, stage)))
    with pytest.raises(ProofError, match=r"was proved to lie in \[-?\d.*a run reached") as caught:
        optimize(model(0), BOX)
    assert "float64" not in str(caught.value)


def test_a_wrong_bound_is_exit_code_1_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.onnx").write_bytes(model(0).SerializeToString())
    monkeypatch.setattr(cascade, "interval_bounds", shrunk(cascade.interval_bounds))
    ran = command(capsys, "optimize", "in.onnx", "out.onnx", "--domain", BOX, "--report", "r.json")
    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 2
    assert "A proof is wrong" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_what_a_second_solver_does_not_confirm_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.stability import programmes  # noqa: PLC0415

    def doubtful(task: Any) -> list[Found]:
        empty = np.zeros((0, len(task.blocks.low)))
        return [Found(pair, np.inf, "solver", empty, True, "cbc did not confirm a proof.") for pair in task.pairs]

    monkeypatch.setattr(programmes, "solve", doubtful)
    report = inspect(model(0), BOX, method="leo", solver_check=True)
    assert report["proof"]["trust"]["solver"] == 0
    assert "cbc did not confirm a proof." in report["notes"]
    assert json.loads(report.to_json())["notes"]


def test_dead_units_need_no_search() -> None:
    report = inspect(dense(), BOX, budget=0.0)
    assert report["layers"][0]["by_method"]["interval"] >= 3
