"""Convolutions and pooling in random configurations, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest

from onnxprune.operators.base import NodeView, TensorType
from onnxprune.operators.interval import Array
from onnxprune.operators.tape import NumpyTape
from tests.operators.rules import check_affine, literal, operator
from tests.operators.support import RULES, Case, run_model

Sizes = list[int]


def text(name: str, values: object) -> str:
    return f'{name}="{values}"' if isinstance(values, str) else f"{name}={values}"


def sliding(rng: np.random.Generator, kernel: Sizes, *, dilated: bool = True) -> dict[str, object]:
    """Random strides, dilations and padding."""
    count = len(kernel)
    found: dict[str, object] = {"strides": rng.integers(1, 4, count).tolist()}
    if dilated and rng.random() < 0.5:
        found["dilations"] = rng.integers(1, 4, count).tolist()
    kind = rng.random()
    if kind < 0.5:
        found["pads"] = [int(rng.integers(0, k + 1)) for k in kernel * 2]
    elif kind < 0.8:
        found["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    return found


def convolution(rng: np.random.Generator, *, transposed: bool) -> Case:
    count = int(rng.choice([1, 2, 2, 3]))
    groups, ins, outs = (int(v) for v in rng.integers(1, 4, 3))
    kernel = rng.integers(1, 4, count).tolist()
    spatial = rng.integers(1, 9 if count < 3 else 6, count).tolist()
    attributes = sliding(rng, kernel)
    if transposed:
        strides = np.array(attributes["strides"])
        attributes.setdefault("pads", [0] * (2 * count)) if "auto_pad" not in attributes else None
        attributes["output_padding"] = [int(rng.integers(0, s)) for s in strides]
        if rng.random() < 0.2 and attributes.get("auto_pad") != "VALID":
            attributes.pop("pads", None)
            natural = (np.array(spatial) - 1) * strides + np.array(kernel)
            attributes["output_shape"] = [int(max(1, n + rng.integers(-2, 2))) for n in natural]
    shape = [ins * groups, outs] if transposed else [outs * groups, ins]
    weights = rng.integers(-8, 9, [*shape, *kernel]) / 8
    constants = literal(weights, "w")
    operands = "x, w"
    if rng.random() < 0.7:
        constants += ", " + literal(rng.integers(-8, 9, outs * groups) / 8, "b")
        operands += ", b"
    listed = ", ".join([f"group={groups}", *(text(*item) for item in attributes.items())])
    op = "ConvTranspose" if transposed else "Conv"
    sizes = ",".join(str(n) for n in [int(rng.integers(1, 3)), ins * groups, *spatial])
    return Case(f"y = {op}<{listed}>({operands})", f"float[{sizes}] x", constants)


def pooling(rng: np.random.Generator, op: str) -> Case:
    count = int(rng.choice([1, 2, 2, 3]))
    kernel = rng.integers(1, 4, count).tolist()
    opset = int(rng.choice([11, 19, 22]))
    attributes = sliding(rng, kernel, dilated=op == "MaxPool" or opset >= 19)
    if "pads" in attributes:
        attributes["pads"] = [int(rng.integers(0, k)) for k in kernel * 2]
    attributes["ceil_mode"] = int(rng.integers(0, 2))
    if op == "AveragePool":
        attributes["count_include_pad"] = int(rng.integers(0, 2))
    listed = ", ".join(text(*item) for item in [("kernel_shape", kernel), *attributes.items()])
    sizes = ",".join(str(n) for n in [*rng.integers(1, 3, 2), *rng.integers(2, 9, count)])
    return Case(f"y = {op}<{listed}>(x)", f"float[{sizes}] x", opset=opset)


def cases(seed: int, make: Callable[[np.random.Generator], Case], count: int) -> Iterator[Case]:
    """Random cases that ONNX itself finds consistent, with an output."""
    rng = np.random.default_rng(seed)
    found = 0
    while found < count:
        case = make(rng)
        try:
            result = run_model(case.model, {"x": np.zeros(input_shape(case), np.float32)})[0]
        except Exception as error:  # onnx and onnxruntime raise their own families of plain exceptions
            if "onnx" not in type(error).__module__:
                raise
            continue
        if result.size:
            found += 1
            yield case


def input_shape(case: Case) -> list[int]:
    return [dim.dim_value for dim in case.model.graph.input[0].type.tensor_type.shape.dim]


def check(case: Case, seed: int) -> bool:
    """The rule holds, or says nothing where the stated shape is not the one of ONNX Runtime."""
    rule, node = operator(case)
    x = np.zeros(input_shape(case))
    result = run_model(case.model, {"x": x.astype(np.float32)})[0]
    y = rule.affine(node, NumpyTape(), [x[None]] + [None] * (node.n_inputs - 1))
    if y is not None:
        assert node.out_shape() == result.shape
        check_affine(case, seed)
    return y is not None


@pytest.mark.parametrize("seed", range(12))
def test_convolutions_in_random_configurations(seed: int) -> None:
    for case in cases(seed, lambda rng: convolution(rng, transposed=False), 30):
        assert check(case, seed)


@pytest.mark.parametrize("seed", range(8))
def test_transposed_convolutions_in_random_configurations(seed: int) -> None:
    known = [check(case, seed) for case in cases(seed, lambda rng: convolution(rng, transposed=True), 25)]
    assert sum(known) >= 20


def test_a_transposed_convolution_to_a_stated_shape() -> None:
    rng = np.random.default_rng(0)
    for auto, target in product(("NOTSET", "SAME_UPPER", "SAME_LOWER"), range(5, 11)):
        weights = rng.integers(-8, 9, (2, 3, 4)) / 8
        body = f'y = ConvTranspose<strides=[2], output_shape=[{target}], auto_pad="{auto}">(x, w)'
        case = Case(body, "float[1,2,4] x", literal(weights, "w"))
        rule, node = operator(case)
        types = {**node.types, "y": TensorType(np.dtype(np.float32), (1, 3, target))}
        x = rng.integers(-8, 9, (1, 1, 2, 4)) / 8
        y = rule.affine(NodeView(node.node, types, node.opset), NumpyTape(), [x, None])
        assert y is not None
        np.testing.assert_array_equal(y[0][0], run_model(case.model, {"x": x[0].astype(np.float32)})[0])


@pytest.mark.parametrize("seed", range(6))
def test_average_pooling_in_random_configurations(seed: int) -> None:
    known = [check(case, seed) for case in cases(seed, lambda rng: pooling(rng, "AveragePool"), 30)]
    assert sum(known) >= 18


def picked(case: Case, x: Array) -> Array | None:
    rule, node = operator(case)
    choices = rule.choices(node)
    if choices is None:
        return None
    assert ((choices.indices >= 0).any(axis=1)).all()
    padded = np.append(x.reshape(-1), -np.inf if choices.largest else np.inf)
    entries = padded[choices.indices]
    return np.asarray(entries.max(axis=1) if choices.largest else entries.min(axis=1))


@pytest.mark.parametrize("seed", range(6))
def test_max_pooling_in_random_configurations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = 0
    for case in cases(seed, lambda rng: pooling(rng, "MaxPool"), 40):
        x = rng.normal(size=input_shape(case)).astype(np.float32)
        found, wanted = picked(case, x.astype(np.float64)), run_model(case.model, {"x": x})[0]
        if found is not None:
            np.testing.assert_array_equal(found.reshape(wanted.shape), wanted, err_msg=str(case))
            known += 1
    assert known >= 24


OTHERS = [
    Case("y = GlobalMaxPool(x)", "float[2,3,4,5] x"),
    Case("y = ReduceMax<axes=[0, 2], keepdims=0>(x)", "float[2,3,4] x", opset=13),
    Case("y = ReduceMin(x, a)", "float[2,3,4] x", "int64[1] a = {-2}"),
    Case("y = ReduceMin(x)", "float[2,3] x"),
    Case("y = Max(x, z)", "float[2,3] x, float[3] z"),
    Case("y = Min(x, z, c)", "float[2,1] x, float[3] z", "float c = {0.25}"),
]


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_choices_are_those_of_the_operator(case: Case) -> None:
    rng = np.random.default_rng(0)
    _, node = operator(case)
    feeds, parts = {}, []
    for k in range(node.n_inputs):
        constant = node.constant(k)
        if constant is None:
            shape = [int(d) for d in node.in_shape(k) or ()]  # type: ignore[arg-type] # static here
            feeds[node.input(k)] = rng.normal(size=shape).astype(np.float32)
        if constant is None or constant.dtype.kind == "f":
            parts.append((feeds[node.input(k)] if constant is None else constant).reshape(-1))
    found, wanted = picked(case, np.concatenate(parts)), run_model(case.model, feeds)[0]
    assert found is not None
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)


def test_a_window_over_padding_alone_has_no_choices() -> None:
    case = Case("y = MaxPool<kernel_shape=[2], strides=[1], pads=[1, 1], dilations=[3]>(x)", "float[1,1,2] x")
    rule, node = RULES["MaxPool"], case.node()
    assert rule.choices(node) is None
