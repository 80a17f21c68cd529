"""Operators that let samples meet are told from those that do not (a reshape never does, whatever the shape)."""

from __future__ import annotations

import dataclasses

import pytest

from onnxprune.operators.batching import samples_apart
from tests.operators.rules import literal, operator
from tests.operators.support import Case
from tests.operators.test_affine_rules import W34, eighths

KERNEL = literal(eighths(2, 3, 2), "w")
BACKWARDS = "int64[1] s = {9}, int64[1] e = {-9}, int64[1] a = {0}, int64[1] t = {-1}"
APART = [
    Case("y = Gemm(x, w)", "float[1,3] x", W34),
    Case("y = Conv(x, w)", "float[1,3,5] x", KERNEL),
    Case("y = Reshape(x, s)", "float[1,2,3] x", "int64[2] s = {0, -1}"),
    Case("y = Reshape(x, s)", "float[1,2,3] x", "int64[2] s = {-1, 3}"),
    Case("y = Reshape(x, s)", "float[1,2,3] x", "int64[2] s = {2, -1}"),
    Case("y = Flatten<axis=0>(x)", "float[1,3] x"),
    Case("y = Gather<axis=1>(x, i)", "float[1,4] x", "int64[3] i = {3, 0, 0}"),
    Case("y = Pad(x, p)", "float[1,3] x", "int64[4] p = {0, 1, 0, 2}"),
    Case("y = Add(x, z)", "float[1,3] x, float[3] z"),
    Case("y = MaxPool<kernel_shape=[2]>(x)", "float[1,2,6] x"),
    Case("y = Max(x, z)", "float[1,3] x, float[1,3] z"),
    Case("y = Relu(x)", "float[1,3] x"),
    Case("y = Sigmoid(x)", "float[1,3] x"),
]
MIXED = [
    Case("y = Transpose(x)", "float[1,3] x"),
    Case("y = ReduceSum(x, a)", "float[1,3] x", "int64[1] a = {0}"),
    Case("y = ReduceMax<axes=[0]>(x)", "float[1,3] x", opset=13),
    Case("y = CumSum(x, a)", "float[1,3] x", "int64 a = {0}"),
    Case(
        "y = Slice(x, s, e, a, t)",
        "float[1,3] x",
        "int64[1] s = {9}, int64[1] e = {-9}, int64[1] a = {0}, int64[1] t = {-1}",
    ),
    Case("y = Concat<axis=0>(x, z)", "float[1,3] x, float[1,3] z"),
    Case("y = Softmax(x)", "float[1,3] x"),
]


def apart(case: Case) -> bool:
    rule, one = operator(case)
    _, two = operator(dataclasses.replace(case, inputs=case.inputs.replace("[1,", "[2,")))
    return samples_apart(rule, one, two)


@pytest.mark.parametrize("case", APART, ids=str)
def test_samples_that_stay_apart(case: Case) -> None:
    assert apart(case)


@pytest.mark.parametrize("case", MIXED, ids=str)
def test_samples_that_meet(case: Case) -> None:
    assert not apart(case)
