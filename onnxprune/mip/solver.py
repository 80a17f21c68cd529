"""The adapter around python-mip: every trap of its back ends is closed here, once.

* A name it does not know becomes another solver in silence: see :func:`~onnxprune.mip.library.new_model`.
* HiGHS with a ``cutoff`` reports wrong optima: there is no way to set one here.
* ``objective_bound`` is 0.0 after an LP, and the last solution stays readable after "infeasible": what is
  read depends on the status, a bound is only given for whole-number problems that have a solution.
* ``max_seconds`` persists, and for LPs of one model counts from the first solve: it is set every time, with the
  time already spent added.
* The default gap of 1e-4 calls things optimal that are not: the gap is 0.
* Coefficients below 1e-9 are dropped, which can turn feasible into infeasible: rows are scaled and what is
  negligible is taken out with its worth added to the right-hand side, see :class:`~onnxprune.mip.system.Scaled`.
* CBC prints whatever it is told: see :func:`~onnxprune.mip.quiet.silent`. It also overruns its time limit.
* Feasibility tolerances keep their defaults: tighter ones make HiGHS call feasible problems infeasible.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import EnvironmentFailure
from onnxprune.mip.library import SOLVERS, library, new_model
from onnxprune.mip.quiet import silent
from onnxprune.mip.system import Scaled, ScaledRow, System, power_of_two
from onnxprune.operators.interval import Array

_LONGEST = 1e7


class Status(Enum):
    """How a solve ended."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    """Stopped with a solution."""
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    """Or infeasible: the solver has not found out which."""
    STOPPED = "stopped"
    """Stopped without a solution."""


@dataclass(frozen=True)
class Solution:
    """What a solve gives; None for what the status does not vouch for.

    Attributes:
        status: How it ended.
        seconds: Wall time.
        value: Objective at ``x``.
        bound: Upper bound on the objective, of whole-number problems only; the solver's word.
        x: Shape (columns,), up to the solver's tolerances.
        duals: Shape (rows,), of LPs only; at an optimum >= 0 where the upper side of the row binds.
    """

    status: Status
    seconds: float
    value: float | None = None
    bound: float | None = None
    x: Array | None = None
    duals: Array | None = None


class Solver:
    """One system of constraints in one solver, for one solve after another.

    Args:
        system: The constraints.
        name: One of :data:`~onnxprune.mip.library.SOLVERS`.

    Raises:
        InputError: If there is no such solver.
        EnvironmentFailure: If it cannot be used here.
    """

    def __init__(self, system: System, name: str = "highs") -> None:
        self.name = name
        self.system = system
        self._mip = library() if name in SOLVERS else None
        self._model = new_model(name)
        self._whole = bool(system.integer.any())
        self._scaled = Scaled.of(system)
        self._spent = 0.0
        self._barrier = False
        self._columns: list[Any] = [
            self._model.add_var(lb=low, ub=high, var_type="I" if whole else "C")
            for low, high, whole in zip(
                self._scaled.low.tolist(), self._scaled.high.tolist(), system.integer.tolist(), strict=True
            )
        ]
        self._rows = self._build()

    def solve(self, objective: Array | None, seconds: float, extra: tuple[Array, float] | None = None) -> Solution:
        """Maximise.

        Args:
            objective: Shape (columns,); None for any feasible point.
            seconds: Limit on the wall time. HiGHS keeps it within a fraction of a second, CBC overruns it.
            extra: A row ``coefficients @ x >= low`` for this solve alone.

        Raises:
            EnvironmentFailure: If the solver breaks down.
        """
        began = time.perf_counter()
        if seconds <= 0 or not self._columns:
            return Solution(Status.STOPPED, 0.0)
        factor = self._aim(objective)
        row = None
        if extra is not None:
            index = np.flatnonzero(extra[0])
            if not len(index) and extra[1] > 0:
                return Solution(Status.INFEASIBLE, 0.0)
            row = self._scaled.row(index, extra[0][index], extra[1], np.inf)
        held = None if row is None else self._add(row)
        try:
            solution = self._solve(seconds, factor)
        finally:
            if held is not None:
                self._model.remove([held])
        return replace(solution, seconds=time.perf_counter() - began)

    def demand(self, coefficients: Array, low: float = -np.inf, high: float = np.inf) -> Any:
        """Add ``low <= coefficients @ x <= high`` for all solves to come.

        Args:
            coefficients: Shape (columns,).
            low: Lower side.
            high: Upper side.

        Returns:
            What :meth:`withdraw` takes; None where there was nothing to demand.
        """
        index = np.flatnonzero(coefficients)
        row = self._scaled.row(index, coefficients[index], low, high)
        return None if row is None else self._add(row)

    def withdraw(self, row: Any) -> None:
        """Take a row out that was demanded."""
        if row is not None:
            self._model.remove([row])

    def _aim(self, objective: Array | None) -> float:
        """Set the objective, scaled to the order of 1; what to multiply its value with."""
        scaled = np.zeros(len(self._columns)) if objective is None else objective * self._scaled.scale
        size = np.abs(scaled).max(initial=0.0)
        factor = float(power_of_two(size, -200, 200)) if size > 0 else 1.0
        index = np.flatnonzero(scaled)
        chosen = [self._columns[i] for i in index]
        self._model.objective = self._mip.LinExpr(chosen, (scaled[index] / factor).tolist())  # type: ignore[union-attr]
        self._model.sense = self._mip.MAXIMIZE  # type: ignore[union-attr]
        return factor

    def _solve(self, seconds: float, factor: float) -> Solution:
        """A solve; an LP whose simplex stalls gets the interior-point method for the second half of its time."""
        if self._whole or self._barrier or self.name != "highs":
            return self._read(self._run(seconds, barrier=self._barrier), factor)
        status = self._run(seconds / 2, barrier=False)
        if status is Status.STOPPED:
            status = self._run(seconds / 2, barrier=True)
            self._barrier = status is Status.OPTIMAL
        return self._read(status, factor)

    def _run(self, seconds: float, *, barrier: bool) -> Status:
        """One call of the solver, under its time limit."""
        mip = self._mip
        assert mip is not None
        self._model.lp_method = mip.LP_Method.BARRIER if barrier else mip.LP_Method.AUTO
        # HiGHS compares the limit of an LP with the time of all solves of the model, that of a MIP with one solve.
        adds_up = self.name == "highs" and not self._whole
        limit = min(seconds, _LONGEST) + (self._spent if adds_up else 0.0)
        began = time.perf_counter()
        try:
            with silent() if self.name == "cbc" else nullcontext():
                found = self._model.optimize(max_seconds=limit)
        except Exception as error:  # each back end has errors of its own
            raise EnvironmentFailure(
                f'Solver "{self.name}" broke down: {error or type(error).__name__}.', hint="Try another --solver."
            ) from error
        finally:
            self._spent += time.perf_counter() - began
        known = {
            "OPTIMAL": Status.OPTIMAL,
            "INFEASIBLE": Status.INFEASIBLE,
            "INT_INFEASIBLE": Status.INFEASIBLE,
            "UNBOUNDED": Status.UNBOUNDED,
            "FEASIBLE": Status.FEASIBLE if self._whole else Status.STOPPED,
        }
        return known.get(found.name, Status.STOPPED)

    def _read(self, status: Status, factor: float) -> Solution:
        """What the status vouches for; duals also of a stopped LP, since any multipliers give a valid bound."""
        duals = None
        if not self._whole and status in (Status.OPTIMAL, Status.STOPPED):
            duals = self._duals(factor)
        if status not in (Status.OPTIMAL, Status.FEASIBLE):
            return Solution(status, 0.0, duals=duals)
        values = [column.x for column in self._columns]
        if any(value is None for value in values):
            return Solution(Status.STOPPED, 0.0, duals=duals)
        x = np.array(values, dtype=np.float64) * self._scaled.scale
        value = float(self._model.objective_value) * factor
        bound = None
        if self._whole:
            told = self._model.objective_bound
            bound = np.inf if told is None or not np.isfinite(told) else max(float(told) * factor, value)
        return Solution(status, 0.0, value, bound, x, duals)

    def _duals(self, factor: float) -> Array:
        duals = np.zeros(self.system.rows.shape[0])
        for place, (row, scale) in self._rows.items():
            told = row.pi
            duals[place] = 0.0 if told is None else told * scale * factor
        return np.where(np.isfinite(duals), duals, 0.0)

    def _build(self) -> dict[int, tuple[Any, float]]:
        """Add all rows; the ones that demand something, with their scales."""
        rows, built = self.system.rows, {}
        for place in range(rows.shape[0]):
            part = slice(rows.indptr[place], rows.indptr[place + 1])
            index: NDArray[np.intp] = rows.indices[part].astype(np.intp)
            low, high = float(self.system.row_low[place]), float(self.system.row_high[place])
            row = self._scaled.row(index, rows.data[part], low, high)
            if row is not None:
                built[place] = self._add(row), row.factor
        return built

    def _add(self, row: ScaledRow) -> Any:
        """Add one row in one go; a row with two sides gets a column that fills the gap."""
        columns, values = [self._columns[i] for i in row.index], row.values.tolist()
        if row.low == row.high:
            sense, side = "=", row.low
        elif np.isinf(row.low):
            sense, side = "<", row.high
        elif np.isinf(row.high):
            sense, side = ">", row.low
        else:
            half = (row.high - row.low) / 2
            columns, values = [*columns, self._model.add_var(lb=-half, ub=half)], [*values, 1.0]
            sense, side = "=", (row.low + row.high) / 2
        return self._model.add_constr(self._mip.LinExpr(columns, values, -side, sense))  # type: ignore[union-attr]
