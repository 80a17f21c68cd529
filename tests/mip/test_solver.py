"""Traps of python-mip: each is shown on python-mip itself, then on the adapter, which must not fall into it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import mip
import numpy as np
import pytest
from scipy import sparse

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.mip import Solver, Status, System, check_solver
from onnxprune.mip.library import new_model
from onnxprune.mip.quiet import silent

BOTH = pytest.mark.parametrize("name", ["highs", "cbc"])


def system(low: Any, high: Any, rows: Any = (), limits: Any = (), *, least: Any = None, whole: bool = False) -> System:
    low, high = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    limits = np.array(limits, dtype=np.float64)
    matrix = sparse.csr_array(np.array(rows, dtype=np.float64).reshape(len(limits), len(low)))
    lower = np.full(len(limits), -np.inf) if least is None else np.array(least, dtype=np.float64)
    return System(low, high, np.full(len(low), whole), matrix, lower, limits)


def raw(what: System, objective: Any, name: str = "highs", sense: str = "MAX") -> tuple[Any, list[Any]]:
    """The same without the adapter."""
    model = mip.Model(sense=sense, solver_name=name)
    model.verbose = 0
    kinds = ["I" if whole else "C" for whole in what.integer]
    ends = zip(what.low, what.high, kinds, strict=True)
    columns = [model.add_var(lb=low, ub=high, var_type=kind) for low, high, kind in ends]
    for row, low, high in zip(what.rows.toarray(), what.row_low, what.row_high, strict=True):
        sense, side = ("<", high) if np.isfinite(high) else (">", low)
        model.add_constr(mip.LinExpr(columns, row.tolist(), -side, sense))
    model.objective = mip.LinExpr(columns, np.array(objective, dtype=np.float64).tolist())
    return model, columns


def knapsack(seed: int, size: int) -> tuple[System, Any]:
    rng = np.random.default_rng(seed)
    weights = rng.integers(20000, 60000, size=size)
    values = weights + rng.integers(-50, 50, size=size)
    return system(np.zeros(size), np.ones(size), [weights], [weights.sum() // 2], whole=True), values


def random_lp(seed: int, size: int = 120, rows: int = 100) -> System:
    rng = np.random.default_rng(seed)
    return system(np.zeros(size), np.ones(size), rng.normal(size=(rows, size)), np.ones(rows))


@pytest.mark.parametrize("name", ["SCIP", "higs", "CPLEX", ""])
def test_a_wrong_name_is_an_error_and_no_other_solver(name: str) -> None:
    assert type(mip.Model(solver_name=name).solver).__name__ == "SolverCbc"
    with pytest.raises(InputError, match="Use one of highs, cbc, gurobi"):
        check_solver(name)
    with pytest.raises(InputError):
        Solver(system([0], [1]), name)


@BOTH
def test_a_known_name_is_that_solver(name: str) -> None:
    check_solver(name)


@BOTH
def test_a_model_can_be_deleted_while_cffi_is_busy(name: str) -> None:
    """Garbage is collected at any time: also while cffi parses and holds its lock, which is not reentrant."""
    script = (
        "import gc, sys, mip, mip.cbc, mip.highs\n"
        "if sys.argv[2] == 'adapter':\n"
        "    from onnxprune.mip.library import new_model\n"
        "    model = new_model(sys.argv[1])\n"
        "else:\n"
        "    model = mip.Model(solver_name=sys.argv[1])\n"
        "with getattr(mip, sys.argv[1]).ffi._lock:\n"
        "    del model\n"
        "    gc.collect()\n"
    )

    def run(how: str, seconds: float) -> None:
        subprocess.run([sys.executable, "-c", script, name, how], timeout=seconds, check=True)

    with pytest.raises(subprocess.TimeoutExpired):
        run("raw", 5)
    run("adapter", 60)


def test_a_solver_that_is_not_there_is_explained() -> None:
    import mip.gurobi  # noqa: PLC0415

    if mip.gurobi.has_gurobi:
        pytest.skip("Gurobi is installed here")
    with pytest.raises(EnvironmentFailure, match="licence, or use --solver highs"):
        check_solver("gurobi")


def test_another_solver_behind_the_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = mip.Model
    monkeypatch.setattr(mip, "Model", lambda sense, solver_name: real(sense=sense, solver_name="cbc"))
    with pytest.raises(EnvironmentFailure, match="chose SolverCbc"):
        check_solver("highs")


def test_a_cutoff_gives_wrong_optima_and_cannot_be_set() -> None:
    rng = np.random.default_rng(0)
    rows, cost = rng.integers(0, 10, size=(4, 20)), rng.integers(5, 40, size=20)
    what = system(np.zeros(20), np.ones(20), -rows, -0.45 * rows.sum(axis=1), whole=True)
    model, _ = raw(what, cost, sense="MIN")
    model.max_mip_gap = 0.0
    model.optimize(max_seconds=10)
    best = model.objective_value
    wrong, _ = raw(what, cost, sense="MIN")
    wrong.max_mip_gap, wrong.cutoff = 0.0, best - 5
    assert wrong.optimize(max_seconds=10).name == "OPTIMAL"
    assert wrong.objective_value > best + 0.5
    solution = Solver(what).solve(-cost.astype(np.float64), 10)
    assert solution.status is Status.OPTIMAL
    assert solution.value == pytest.approx(-best)
    assert solution.bound == pytest.approx(-best)


def test_the_objective_bound_of_an_lp_is_never_read() -> None:
    what = system([0, 0], [1, 1], [[1, 1]], [1.5])
    model, _ = raw(what, [1, 1])
    model.optimize()
    assert model.objective_value == pytest.approx(1.5)
    assert model.objective_bound == 0.0
    solution = Solver(what).solve(np.ones(2), 10)
    assert solution.bound is None
    assert solution.value == pytest.approx(1.5)


def test_the_last_solution_is_not_read_after_infeasible() -> None:
    what = system([0, 0], [1, 1], [[1, 1]], [1.5])
    model, columns = raw(what, [1, 1])
    model.optimize()
    model.add_constr(mip.LinExpr(columns, [1, 1], -3.0, ">"))
    assert model.optimize().name == "INFEASIBLE"
    assert model.objective_value is not None
    assert columns[0].x is not None
    solver = Solver(what)
    assert solver.solve(np.ones(2), 10).x is not None
    solution = solver.solve(np.ones(2), 10, extra=(np.ones(2), 3.0))
    assert solution.status is Status.INFEASIBLE
    assert solution.x is None
    assert solution.value is None
    assert solver.solve(np.ones(2), 10).value == pytest.approx(1.5)


def test_time_limits_do_not_persist() -> None:
    what, objective = random_lp(0), np.random.default_rng(1).normal(size=120)
    model, _ = raw(what, objective)
    model.optimize(max_seconds=1e-9)
    assert model.optimize().name == "TRUNCATED"
    solver = Solver(what)
    assert solver.solve(objective, 1e-9).status is Status.STOPPED
    assert solver.solve(objective, 20).status is Status.OPTIMAL


def test_time_limits_of_one_lp_model_do_not_add_up() -> None:
    what, rng, limit = random_lp(0), np.random.default_rng(1), 0.5
    model, columns = raw(what, np.zeros(120))
    names, began = [], time.perf_counter()
    while time.perf_counter() - began < 3 * limit:
        model.objective = mip.LinExpr(columns, rng.normal(size=120).tolist())
        names.append(model.optimize(max_seconds=limit).name)
    assert names[0] == "OPTIMAL"
    assert names[-1] == "TRUNCATED"
    solver, began, found = Solver(what), time.perf_counter(), []
    while time.perf_counter() - began < 3 * limit:
        found.append(solver.solve(rng.normal(size=120), 2 * limit).status)
    assert set(found) == {Status.OPTIMAL}


def test_the_default_gap_calls_things_optimal_that_are_not() -> None:
    what, values = knapsack(20, 12)
    model, _ = raw(what, values)
    assert model.optimize(max_seconds=20).name == "OPTIMAL"
    solution = Solver(what).solve(values.astype(np.float64), 20)
    assert solution.value is not None
    assert solution.bound is not None
    assert solution.value > model.objective_value + 1
    assert solution.bound == pytest.approx(solution.value, abs=0.1)


def test_small_coefficients_are_not_dropped_in_silence() -> None:
    """1e-10 x >= 1 with x up to 1e12 is feasible; HiGHS drops the coefficient and denies it."""
    what = system([0], [1e12], [[1e-10]], [np.inf], least=[1.0])
    model, _ = raw(what, [0])
    assert model.optimize().name == "INFEASIBLE"
    solution = Solver(what).solve(None, 10)
    assert solution.status is Status.OPTIMAL
    assert solution.x is not None
    assert solution.x[0] >= 1e10 * (1 - 1e-6)


def test_negligible_coefficients_widen_their_row() -> None:
    """2,000 terms of 1.5e-9 are worth 3e-6: taken out, their worth must not be lost."""
    row = np.concatenate([[1.0], np.full(2000, 1.5e-9)])
    high = np.concatenate([[1 - 2.9e-6], np.ones(2000)])
    what = system(np.zeros(2001), high, [row], [np.inf], least=[1.0])
    assert Solver(what).solve(None, 10).status is Status.OPTIMAL


@BOTH
def test_cbc_prints_unless_silenced(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    if name == "cbc":
        model, _ = raw(system([0, 0], [1, 1], [[1, 1]], [1.5]), [1, 1], name)
        model.optimize()
        with silent():
            pass  # empties the buffers of the C library
        assert "objective" in capfd.readouterr().out
    integers, values = knapsack(20, 12)
    for what, objective in ((system([0, 0], [1, 1], [[1, 1]], [1.5]), np.ones(2)), (integers, values.astype(float))):
        solver = Solver(what, name)
        for low in (0.5, 100.0, -1.0):
            solver.solve(objective, 20, extra=(np.ones(len(objective)), low))
        with silent():
            pass
        assert capfd.readouterr() == ("", "")
    os.write(1, b"still here")
    assert capfd.readouterr().out == "still here"


def test_silence_ends_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with silent():
            os.write(1, b"lost")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    os.write(1, b"seen")
    assert capfd.readouterr().out == "seen"


@BOTH
def test_one_thread_default_tolerances_no_gap(name: str) -> None:
    fresh, model = mip.Model(solver_name=name), new_model(name)
    assert model.threads == 1
    assert model.max_mip_gap == 0.0
    assert 0 < model.max_mip_gap_abs <= 1e-6
    assert (model.infeas_tol, model.integer_tol) == (fresh.infeas_tol, fresh.integer_tol)


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_highs_keeps_its_time(seconds: float) -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 1000, size=(5, 60))
    what = system(np.zeros(60), np.ones(60), rows, rows.sum(axis=1) // 2, whole=True)
    solver = Solver(what)
    for _ in range(2):
        solution = solver.solve(rng.integers(0, 1000, size=60).astype(np.float64), seconds)
        assert solution.seconds < seconds + 2.0
        if solution.status is Status.FEASIBLE:
            assert solution.bound is not None
            assert solution.value is not None
            assert solution.bound >= solution.value
    assert solver.solve(None, 0.0).status is Status.STOPPED
    assert solver.solve(None, -1.0).status is Status.STOPPED


def test_barrier_takes_over_when_simplex_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    real = Solver._run

    def run(self: Solver, seconds: float, *, barrier: bool) -> Status:
        calls.append(barrier)
        return real(self, seconds, barrier=True) if barrier else Status.STOPPED

    monkeypatch.setattr(Solver, "_run", run)
    what, rng = random_lp(0), np.random.default_rng(1)
    objective = rng.normal(size=120)
    solver = Solver(what)
    stalled = [solver.solve(objective, 20) for _ in range(2)]
    assert calls == [False, True, True]
    monkeypatch.undo()
    value = Solver(what).solve(objective, 20).value
    assert [s.value for s in stalled] == pytest.approx([value, value])


@BOTH
def test_duals_prove_the_optimum(name: str) -> None:
    """Signs: at least 0 where the upper side of a row binds, at most 0 for the lower one, either for equations."""
    rows = [[1, 2], [-1, 1], [1, -1]]
    what = system([0, -5], [10, 10], rows, [8, np.inf, 1], least=[-np.inf, -2, 1])
    solver = Solver(what, name)
    for objective in ([1, 1], [-1, -1], [3, -1], [1000, 2000], [1e-6, 0]):
        solution = solver.solve(np.array(objective, dtype=np.float64), 10)
        assert solution.duals is not None
        assert solution.x is not None
        left = objective - what.rows.T @ solution.duals
        bound = np.maximum(left * what.low, left * what.high).sum()
        for dual, low, high in zip(solution.duals, what.row_low, what.row_high, strict=True):
            bound += max(dual * side for side in (low, high) if np.isfinite(side))
        assert bound == pytest.approx(solution.value, rel=1e-9)


@BOTH
@pytest.mark.parametrize("whole", [False, True])
def test_scales_do_not_change_the_answer(name: str, whole: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows, cost = rng.integers(-5, 6, size=(4, 5)), rng.integers(-5, 6, size=5).astype(np.float64)
        sizes, factors = 10.0 ** rng.integers(-4, 5, size=5), 10.0 ** rng.integers(-4, 5, size=4)
        sizes = np.ones(5) if whole else sizes
        plain = system(np.zeros(5), np.full(5, 3), rows, np.full(4, 7), whole=whole)
        odd = system(np.zeros(5), 3 * sizes, rows / sizes * factors[:, None], 7 * factors, whole=whole)
        expected = Solver(plain, name).solve(cost, 10).value
        assert Solver(odd, name).solve(cost / sizes, 10).value == pytest.approx(expected, rel=1e-6, abs=1e-6)


@BOTH
def test_two_sided_rows(name: str) -> None:
    what = system([-9, -9], [9, 9], [[1, 1]], [2], least=[-1])
    solver = Solver(what, name)
    assert solver.solve(np.array([1.0, 1.0]), 10).value == pytest.approx(2)
    assert solver.solve(np.array([-1.0, -1.0]), 10).value == pytest.approx(1)
    narrow = Solver(system([-9, -9], [9, 9], [[1, 1]], [2], least=[2 - 1e-3]), name)
    assert narrow.solve(np.array([-1.0, -1.0]), 10).value == pytest.approx(1e-3 - 2, abs=1e-6)
    thin = system([-9, -9], [9, 9], [[1, 1]], [2 + 1e-12], least=[2])
    assert Solver(thin, name).solve(np.array([1.0, 1.0]), 10).value == pytest.approx(2)


@BOTH
def test_extra_rows_leave_no_trace(name: str) -> None:
    what, values = knapsack(3, 8)
    solver, cost = Solver(what, name), values.astype(np.float64)
    before = solver.solve(cost, 20).value
    for low, status in ((3.0, Status.OPTIMAL), (9.0, Status.INFEASIBLE), (1.0, Status.OPTIMAL)):
        assert solver.solve(cost, 20, extra=(np.ones(8), low)).status is status
    assert solver.solve(cost, 20, extra=(np.zeros(8), 1.0)).status is Status.INFEASIBLE
    assert solver.solve(cost, 20).value == pytest.approx(before)


def test_a_breakdown_names_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Solver(system([0], [1]))

    def fail(**_: object) -> None:
        raise mip.InterfacingError("no luck")

    monkeypatch.setattr(solver._model, "optimize", fail)
    with pytest.raises(EnvironmentFailure, match='"highs" broke down: no luck'):
        solver.solve(np.ones(1), 1)
