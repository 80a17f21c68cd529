from __future__ import annotations

import numpy as np
import pytest

from tests.surgeon.differentiation.support import Problem, check, model, samples

CONSTANTS = """
    int64[3] flat = {0, -1, 2}, int64[1] one = {1}, int64[1] two = {2}, int64[2] parts = {1, 2},
    int64[3] pick = {2, 0, 2}, int64[8] pads = {0, 0, 1, 0, 0, 1, 0, 2}, float[4] scales = {1, 1, 2, 1},
    int64[4] tiles = {1, 2, 1, 1}, int64[4] wide = {1, 3, 4, 2}, int64[1] end = {100}, int64[1] back = {-1},
    int64[1] far = {-100}, int64[2] axes = {2, 3}, float[1,1,4,2] c = {1, 2, 3, 4, 5, 6, 7, 8}, int64 axis = {1}
"""
CASES = {
    "Concat": "Concat<axis=1>(a, x, c)",
    "Concat with weights": "Concat<axis=1>(a, v)",
    "Split": "Split<axis=1>(a, parts)",
    "Slice": "Slice(a, one, end, two)",
    "Slice back": "Slice(a, back, far, two, back)",
    "Gather": "Gather<axis=1>(a, pick)",
    "Transpose": "Transpose<perm=[0,3,1,2]>(a)",
    "Transpose of the batch": "Transpose<perm=[2,0,3,1]>(a)",
    "Reshape": "Reshape(a, flat)",
    "Flatten": "Flatten(a)",
    "Flatten from the start": "Flatten<axis=3>(a)",
    "Squeeze": "Squeeze(m, axes)",
    "Unsqueeze": "Unsqueeze(a, axes)",
    "Pad": "Pad(a, pads)",
    "Tile": "Tile(a, tiles)",
    "Expand": "Expand(m, wide)",
    "Resize": 'Resize<mode="nearest">(a, , scales)',
    "ReduceSum": "ReduceSum<keepdims=0>(a, axes)",
    "ReduceMean": "ReduceMean(a, one)",
    "ReduceL1": "ReduceL1(a, axes)",
    "ReduceL2": "ReduceL2<keepdims=0>(a, axes)",
    "ReduceSumSquare": "ReduceSumSquare(a, one)",
    "ReduceLogSumExp": "ReduceLogSumExp<keepdims=0>(a, one)",
    "ReduceLogSum": "ReduceLogSum(e, axes)",
    "AveragePool": "AveragePool<kernel_shape=[2,2], pads=[0,1,0,0]>(a)",
    "GlobalAveragePool": "GlobalAveragePool(a)",
    "CumSum": "CumSum(a, axis)",
    "Dropout": "Dropout(a)",
    "DepthToSpace": "DepthToSpace<blocksize=2>(d)",
}
SINGLE = {"AveragePool", "GlobalAveragePool", "Resize", "DepthToSpace"}


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("case", CASES)
def test_moves_and_sums(case: str, batch: str) -> None:
    rng = np.random.default_rng(50)
    body = "a = Mul(x, w)\n"
    body += "e = Exp(a)\n" if "(e" in CASES[case] else ""
    body += "m = ReduceMean(a, axes)\n" if "(m" in CASES[case] else ""
    body += "d = Concat<axis=1>(a, v)\n" if "(d" in CASES[case] else ""
    body += ("p, q = " if case == "Split" else "q = ") + CASES[case] + "\n y = Tanh(q)"
    weights = {"w": rng.normal(size=(3, 4, 2)), "v": rng.normal(size=(1, 1, 4, 2))}
    used = ["w", "v"] if ", v)" in body else ["w"]
    found = model(body, f"float[{batch},3,4,2] x", {name: weights[name] for name in used}, constants=CONSTANTS)
    dtype = np.float32 if case in SINGLE else np.float64
    check(Problem(found, used, ["y"], samples(found, rng), dtype), tolerance=1e-4 if case in SINGLE else 1e-6)


def test_rows_without_a_batch_axis() -> None:
    rng = np.random.default_rng(51)
    body = """
        a = Mul(x, w)
        b = Concat<axis=0>(a, r)
        t = Transpose(b)
        s, u = Split<axis=0>(t, parts)
        m = ReduceSum(u, zero)
        p = Pad(m, pads)
        e = Expand(p, wide)
        g = Gather<axis=0>(e, pick)
        y = Sub(g, s)
    """
    constants = """int64[2] parts = {1, 2}, int64[1] zero = {0}, int64[4] pads = {1, 0, 0, 0},
        int64[3] wide = {2, 2, 4}, int64[2] pick = {1, 1}"""
    found = model(
        body, "float[3,3] x", {"w": rng.normal(size=(3, 1)), "r": rng.normal(size=(1, 3))}, constants=constants
    )
    check(Problem(found, ["w", "r"], ["y"], samples(found, rng)), tolerance=1e-6)
