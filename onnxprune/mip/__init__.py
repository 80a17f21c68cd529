"""Mixed-integer programming over networks of rectified affine units; the only place that knows python-mip."""

from onnxprune.mip.branching import Branched, branch
from onnxprune.mip.encoding import Encoding, encode
from onnxprune.mip.joint import JointResult, Pair, prove_jointly
from onnxprune.mip.leo import Answer, UnitMILP, Verdict
from onnxprune.mip.library import SOLVERS, check_solver
from onnxprune.mip.lp import LayerLP, LPResult
from onnxprune.mip.safe import dual_bound
from onnxprune.mip.second_opinion import Opinion, confirm
from onnxprune.mip.solver import Solution, Solver, Status
from onnxprune.mip.system import System

__all__ = [
    "SOLVERS",
    "Answer",
    "Branched",
    "Encoding",
    "JointResult",
    "LPResult",
    "LayerLP",
    "Opinion",
    "Pair",
    "Solution",
    "Solver",
    "Status",
    "System",
    "UnitMILP",
    "Verdict",
    "branch",
    "check_solver",
    "confirm",
    "dual_bound",
    "encode",
    "prove_jointly",
]
