"""Affine maps and adjoints of every operator that has them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.operators import entries
from onnxprune.operators.tape import NumpyTape
from tests.operators.rules import check_affine, literal, operator
from tests.operators.support import Case, check_removal
from tests.operators.test_moving import STATIC as MOVING


def eighths(*shape: int, seed: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(seed).integers(-8, 9, shape) / 8


W34, W43, B4, B3 = (literal(eighths(*s), n) for s, n in (((3, 4), "w"), ((4, 3), "w"), ((4,), "b"), ((3, 1), "b")))
STACK = literal(eighths(2, 3, 4), "w")
V3 = literal(eighths(3), "w")
DENSE = [
    Case("y = Gemm(x, w, b)", "float[2,3] x", f"{W34}, {B4}"),
    Case("y = Gemm<transB=1, alpha=0.5, beta=0.3>(x, w, b)", "float[1,3] x", f"{W43}, {B4}"),
    Case("y = Gemm<transA=1>(x, w)", "float[3,2] x", W34),
    Case("y = Gemm<transA=1, alpha=-2.0>(w, x, b)", "float[4,2] x", f"{W43}, {B3}"),
    Case("y = Gemm<transB=1>(w, x, b)", "float[2,4] x", f"{W34}, {B3}"),
    Case("y = Gemm<beta=0.5>(x, w, z)", "float[2,3] x, float[4] z", W34),
    Case("y = Gemm(x, w, z)", "float[2,3] x, float[2,1] z", W34),
    Case("y = MatMul(x, w)", "float[2,3] x", W34),
    Case("y = MatMul(x, w)", "float[3] x", W34),
    Case("y = MatMul(w, x)", "float[4] x", W34),
    Case("y = MatMul(w, x)", "float[4,5] x", W34),
    Case("y = MatMul(w, x)", "float[2,4,5] x", W34),
    Case("y = MatMul(x, w)", "float[2,5,3] x", STACK),
    Case("y = MatMul(x, w)", "float[5,3] x", STACK),
    Case("y = MatMul(x, w)", "float[3] x", STACK),
    Case("y = MatMul(w, x)", "float[1,4,5] x", STACK),
    Case("y = MatMul(w, x)", "float[5,1,4,2] x", STACK),
    Case("y = MatMul(w, x)", "float[4] x", STACK),
    Case("y = MatMul(x, w)", "float[2,5,3] x", V3),
    Case("y = MatMul(w, x)", "float[2,3,5] x", V3),
    Case("y = MatMul(w, x)", "float[3] x", V3),
    Case("y = MatMul(x, w)", "float[3] x", V3),
    Case(
        "y = BatchNormalization(x, s, b, m, v)",
        "float[2,3,4] x",
        ", ".join(
            [
                *(literal(eighths(3, seed=k), n) for k, n in enumerate("sbm")),
                literal(np.array([0.5, 0.0, 2.0]), "v"),
            ]
        ),
        opset=15,
    ),
]
SAME = [
    Case("y = Identity(x)", "float[2,3] x"),
    Case("y = Dropout(x)", "float[2,3] x"),
    Case("y = Reshape(x, s)", "float[2,3,4] x", "int64[3] s = {4, 0, -1}"),
    Case("y = Flatten(x)", "float[2,3,4] x"),
    Case("y = Flatten<axis=0>(x)", "float[2,3,4] x"),
    Case("y = Unsqueeze(x, a)", "float[2,3] x", "int64[2] a = {-1, 1}"),
]
MOVES = [
    Case("y = Transpose<perm=[2, 0, 1]>(x)", "float[2,3,4] x"),
    Case(
        "y = Slice(x, s, e, a, t)",
        "float[3,4] x",
        "int64[1] s = {3}, int64[1] e = {0}, int64[1] a = {1}, int64[1] t = {-2}",
    ),
    Case("y = Gather<axis=1>(x, i)", "float[2,3] x", "int64[5] i = {2, 2, 0, 2, 2}"),
    Case("y = Gather<axis=1>(x, i)", "float[1,9] x", "int64[3] i = {7, 2, 5}"),
    Case("y = Expand(x, s)", "float[3,1] x", "int64[3] s = {2, 1, 4}"),
    Case("y = Tile(x, r)", "float[2,3] x", "int64[2] r = {2, 3}"),
    Case("y = Pad(x, p, v)", "float[2,3] x", "int64[4] p = {1, 0, 0, 2}, float v = {0.7}"),
    Case("y = Pad(x, p)", "float[2,3] x", "int64[4] p = {-1, 1, 0, -1}"),
    Case('y = Pad<mode="reflect">(x, p)', "float[2,5] x", "int64[4] p = {0, 2, 0, 3}"),
    Case('y = Pad<mode="edge">(x, p)', "float[2,5] x", "int64[4] p = {1, 7, 0, 3}"),
    Case("y = Pad<pads=[0, 1, 0, 2], value=0.3>(x)", "float[2,3] x", opset=10),
    Case("y = Pad(x, p, z)", "float[2,3] x, float[1] z", "int64[4] p = {1, 0, 0, 2}"),
    Case("y = DepthToSpace<blocksize=2>(x)", "float[2,8,2,3] x"),
    Case('y = DepthToSpace<blocksize=2, mode="CRD">(x)', "float[1,8,2,3] x"),
    Case("y = SpaceToDepth<blocksize=2>(x)", "float[1,2,4,6] x"),
    Case('y = Resize<mode="nearest">(x, e, v)', "float[1,2,3,4] x", "float[4] v = {1, 1, 2, 1.5}, float[0] e = {}"),
    Case(
        'y = Resize<mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric">(x, e, e, v)',
        "float[1,2,3,4] x",
        "int64[4] v = {1, 2, 2, 7}, float[0] e = {}",
        opset=13,
    ),
    Case('y = Upsample<mode="nearest">(x, v)', "float[1,2,3,4] x", "float[4] v = {1, 1, 2, 3}", opset=9),
    Case("y = Concat<axis=1>(x, c, x)", "float[1,2] x", "float[1,3] c = {1, 0.1, 2}"),
    Case("y = Concat<axis=0>(x, z)", "float[2,3] x, float[1,3] z"),
]


SLICE = "int64[1] s = {6}, int64[1] e = {-9}, int64[1] a = {0}, int64[1] t = {-2}"
C23 = literal(eighths(2, 3), "c")
SUMS = [
    Case("y = Add(x, c)", "float[2,3] x", C23),
    Case("y = Add(c, x)", "float[3] x", C23),
    Case("y = Add(x, x)", "float[3] x"),
    Case("y = Add(x, z)", "float[2,1,3] x, float[4,1] z"),
    Case("y = Sub(x, z)", "float[2,1,3] x, float[3] z"),
    Case("y = Sub(c, x)", "float[4,2,3] x", C23),
    Case("y = Sub(x, c)", "float[1,3] x", C23),
    Case("y = Sum(x, c, z)", "float[2,1] x, float[3] z", C23),
    Case("y = Mean(x, c, x)", "float[2,1] x", C23),
    Case("y = Neg(x)", "float[2,3] x"),
    Case("y = Mul(c, x)", "float[4,1,1] x", C23),
    Case("y = Div(x, c)", "float[3] x", "float[2,1] c = {0.3, -2}"),
    Case("y = ReduceMean<axes=[1], keepdims=0>(x)", "float[2,3,4] x", opset=13),
    Case("y = ReduceMean(x)", "float[2,3,4] x", opset=13),
    Case("y = ReduceSum(x, a)", "float[2,3,4] x", "int64[2] a = {0, -1}"),
    Case("y = ReduceSum<keepdims=0>(x, a)", "float[2,3,4] x", "int64[2] a = {0, -1}"),
    Case("y = ReduceSum<noop_with_empty_axes=1>(x)", "float[2,3] x"),
    Case("y = GlobalAveragePool(x)", "float[2,3,4,5] x"),
    Case("y = CumSum(x, a)", "float[2,3,4] x", "int64 a = {1}"),
    Case("y = CumSum<exclusive=1, reverse=1>(x, a)", "float[2,3,4] x", "int64 a = {-1}"),
]


@pytest.mark.parametrize("case", DENSE + SAME + MOVING + MOVES + SUMS, ids=str)
def test_affine_rules_hold(case: Case) -> None:
    for seed in range(3):
        check_affine(case, seed)


NOT_AFFINE = [
    Case("y = Mul(x, x)", "float[2,3] x"),
    Case("y = Mul(x, z)", "float[2,3] x, float[2,3] z"),
    Case("y = Div(c, x)", "float[2,3] x", C23),
    Case("y = Div(x, c)", "float[3] x", "float[3] c = {1, 0, 2}"),
    Case("y = MatMul(x, z)", "float[2,3] x, float[3,2] z"),
    Case("y = Gemm(x, w)", "float[N,3] x", W34),
    Case("y = Reshape(x, s)", "float[N,3] x", "int64[1] s = {-1}"),
    Case("y = Gather(x, i)", "float[2,3] x, int64[2] i"),
    Case('y = Resize<mode="linear">(x, e, v)', "float[1,2,3,4] x", "float[4] v = {1, 1, 2, 2}, float[0] e = {}"),
    Case("y = Add(x, c)", "int64[3] x", "int64[3] c = {1, 2, 3}"),
]


@pytest.mark.parametrize("case", NOT_AFFINE, ids=str)
def test_nothing_is_said_where_the_map_is_not_affine(case: Case) -> None:
    rule, node = operator(case)
    x = [None if node.constant(k) is not None else np.ones((1, 2, 3)) for k in range(node.n_inputs)]
    assert rule.affine(node, NumpyTape(), x) is None
    assert rule.adjoint(node, NumpyTape(), [np.ones((1, 2, 3))]) is None


def test_more_entries_than_single_precision_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "DIGIT", 5)
    check_affine(Case("y = Slice(x, s, e, a, t)", "float[7,11] x", SLICE))
    check_affine(Case("y = Concat<axis=1>(x, z)", "float[4,5] x, float[4,6] z"))


def test_running_sums_keep_their_axis() -> None:
    assert check_removal(Case("y = CumSum(x, a)", "float[3,4,5] x", "int64 a = {1}"), 0)
