"""Loads python-mip, and makes models of exactly the solver that was asked for."""

from __future__ import annotations

import gc
import importlib
from typing import Any

from onnxprune.errors import EnvironmentFailure, InputError

SOLVERS = {"highs": "SolverHighs", "cbc": "SolverCbc", "gurobi": "SolverGurobi"}
"""Names of solvers, and the class of python-mip each must turn into."""
_HINTS = {
    "highs": 'Install it with: pip install "mip[highs]" "highspy<1.16".',
    "cbc": "Reinstall python-mip, or use --solver highs.",
    "gurobi": "Install gurobipy with a licence, or use --solver highs.",
}
_DELETION = {"highs": ("mip.highs", "highslib", "Highs_destroy"), "cbc": ("mip.cbc", "cbclib", "Cbc_deleteModel")}
"""Module, library and function that deletes a model."""
_GAP = 1e-6
"""Absolute gap at which a solve ends; the relative one is 0."""


def check_solver(name: str) -> None:
    """See to it that a solver can be used.

    Args:
        name: One of :data:`SOLVERS`.

    Raises:
        InputError: If there is no such solver.
        EnvironmentFailure: If it is not installed or has no licence.
    """
    new_model(name)


def library() -> Any:
    """python-mip, loaded when the first solve begins.

    Raises:
        EnvironmentFailure: If it is not installed.
    """
    try:
        import mip  # noqa: PLC0415 - loading it takes a quarter of a second, most runs never need it
    except ImportError as error:
        raise EnvironmentFailure(f"python-mip cannot be loaded: {error}", hint=_HINTS["highs"]) from error
    return mip


def _look_up_deletion(name: str) -> None:
    """Have cffi find what deletes models: it takes a lock that a collection in the middle of its parsing cannot get."""
    if name in _DELETION:
        module, functions, wanted = _DELETION[name]
        getattr(getattr(importlib.import_module(module), functions), wanted)


def new_model(name: str) -> Any:
    """An empty model that maximises, of exactly the solver that was asked for.

    Raises:
        InputError: If there is no such solver.
        EnvironmentFailure: If it cannot be used here.
    """
    if name not in SOLVERS:
        raise InputError(f'There is no solver "{name}".', hint=f"Use one of {', '.join(SOLVERS)}.")
    mip = library()
    collecting = gc.isenabled()
    gc.disable()  # a model collected while cffi parses its declarations would wait for itself
    try:
        model = mip.Model(sense=mip.MAXIMIZE, solver_name=name)
        _look_up_deletion(name)
    except Exception as error:  # each back end has errors of its own
        raise EnvironmentFailure(f'Solver "{name}" cannot be used here.', hint=_HINTS[name]) from error
    finally:
        if collecting:
            gc.enable()
    found = type(model.solver).__name__
    if found != SOLVERS[name]:
        raise EnvironmentFailure(f'python-mip chose {found} for solver "{name}".', hint=_HINTS[name])
    model.verbose = 0
    model.threads = 1
    model.max_mip_gap = 0.0
    model.max_mip_gap_abs = _GAP
    return model
