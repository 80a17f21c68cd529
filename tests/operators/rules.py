"""What every affine rule must satisfy, checked on small models in text form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.interval import Array
from onnxprune.operators.onnx_tape import OnnxTape, Symbol
from onnxprune.operators.static import variables
from onnxprune.operators.tape import NumpyTape
from tests.operators.support import RULES, Case, run_model

ROWS = 3
TAPES = {
    "affine": NumpyTape(),
    "tangent": NumpyTape(shifts=False),
    "absolute": NumpyTape(absolute=True),
}


def operator(case: Case) -> tuple[Operator, NodeView]:
    node = case.node()
    return RULES[node.op], node


def sizes(case: Case, node: NodeView) -> dict[int, tuple[int, ...]]:
    """Static shapes of the variable inputs."""
    found = {}
    for slot in variables(node):
        shape = node.in_shape(slot)
        assert shape is not None
        found[slot] = tuple(size for size in shape if isinstance(size, int))
        assert len(found[slot]) == len(shape)
    return found


def points(case: Case, rng: np.random.Generator, rows: int = ROWS) -> list[Array | None]:
    """Random rows for the variable inputs; multiples of 1/8, equal where the tensors are."""
    _, node = operator(case)
    result: list[Array | None] = [None] * node.n_inputs
    shared: dict[str, Array] = {}
    for slot, shape in sizes(case, node).items():
        values = rng.integers(-16, 17, (rows, *shape)) / 8
        result[slot] = shared.setdefault(node.input(slot), values)
    return result


def check_affine(case: Case, seed: int = 0) -> None:
    """Forward values as ONNX Runtime's, the adjoint identity, magnitudes that dominate, and the ONNX tape."""
    rng = np.random.default_rng(seed)
    rule, node = operator(case)
    x = points(case, rng)
    y = rule.affine(node, TAPES["affine"], x)
    assert y is not None, case
    check_runtime(case, node, x, y)
    linear = rule.affine(node, TAPES["tangent"], x)
    absolute = rule.affine(node, TAPES["absolute"], [None if v is None else np.abs(v) for v in x])
    coefficients: list[Array | None] = [rng.integers(-8, 9, v.shape) / 4 for v in y]
    if len(coefficients) > 1 and rng.random() < 0.3:
        coefficients[-1] = None
    back = rule.adjoint(node, TAPES["affine"], coefficients)
    assert linear is not None
    assert absolute is not None
    assert back is not None
    assert [v is None for v in back] == [v is None for v in x]
    check_identity(coefficients, linear, x, back)
    for values, most in zip(y, absolute, strict=True):
        assert values.shape == most.shape
        assert (np.abs(values) <= most * (1 + 1e-12) + 1e-12).all()
    check_models(rule, node, x, coefficients, {"y": y[0], "linear": linear[0], "absolute": absolute[0]}, back)


def check_runtime(case: Case, node: NodeView, x: list[Array | None], y: list[Array]) -> None:
    for row in range(ROWS):
        feeds = {node.input(slot): v[row].astype(np.float32) for slot, v in enumerate(x) if v is not None}
        for values, wanted in zip(y, run_model(case.model, feeds), strict=False):
            assert values[row].shape == wanted.shape, case
            scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
            np.testing.assert_allclose(values[row], wanted, rtol=0, atol=2e-5 * scale, err_msg=str(case))


def check_identity(
    coefficients: list[Array | None], linear: list[Array], x: list[Array | None], back: list[Array | None]
) -> None:
    """Coefficients times outputs are coefficients on inputs times inputs."""
    outputs = [
        (c * v).reshape(ROWS, -1).sum(axis=1) for c, v in zip(coefficients, linear, strict=False) if c is not None
    ]
    inputs = [
        (c * v).reshape(ROWS, -1).sum(axis=1) for c, v in zip(back, x, strict=True) if c is not None and v is not None
    ]
    left, right = np.sum(outputs, axis=0), np.sum(inputs, axis=0)
    size = sum(float(np.abs(v).sum()) for v in [*linear, *(b for b in back if b is not None)])
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-12 * (1 + size))


def check_models(
    rule: Operator,
    node: NodeView,
    x: list[Array | None],
    coefficients: list[Array | None],
    wanted: Mapping[str, Array],
    back: list[Array | None],
) -> None:
    """The same rules as ONNX models, run by ONNX Runtime."""
    options: dict[str, Any] = {"y": {}, "linear": {"shifts": False}, "absolute": {"absolute": True}}
    for name, values in wanted.items():
        tape = OnnxTape(**options[name])
        given = [np.abs(v) if name == "absolute" and v is not None else v for v in x]
        found = rule.affine(node, tape, [symbol(tape, f"x{k}", v) for k, v in enumerate(given)])
        assert found is not None
        compare(tape, {"y": found[0]}, {f"x{k}": v for k, v in enumerate(given) if v is not None}, {"y": values})
    tape = OnnxTape()
    carried = rule.adjoint(node, tape, [symbol(tape, f"c{k}", c) for k, c in enumerate(coefficients)])
    assert carried is not None
    outputs = {f"b{k}": c for k, c in enumerate(carried) if c is not None}
    expected = {f"b{k}": c for k, c in enumerate(back) if c is not None}
    compare(tape, outputs, {f"c{k}": c for k, c in enumerate(coefficients) if c is not None}, expected)


def symbol(tape: OnnxTape, name: str, values: Array | None) -> Symbol | None:
    return None if values is None else tape.input(name, values.shape[1:])


def compare(
    tape: OnnxTape, outputs: Mapping[str, Symbol], feeds: Mapping[str, Array], wanted: Mapping[str, Array]
) -> None:
    model = tape.finish(outputs)
    onnx.checker.check_model(model, full_check=True)
    names = {value.name for value in model.graph.input}
    stored = {name: v.reshape(Symbol(name, v.shape[1:]).stored).astype(np.float32) for name, v in feeds.items()}
    results = run_model(model, {name: v for name, v in stored.items() if name in names})
    for (name, x), values in zip(outputs.items(), results, strict=True):
        assert [a for a, b in zip(values.shape, x.stored, strict=True) if b >= 0] == [b for b in x.stored if b >= 0]
        found = values.reshape(-1, *x.shape)
        assert found.shape == wanted[name].shape
        scale = max(1.0, float(np.abs(wanted[name]).max(initial=0.0)))
        np.testing.assert_allclose(found, wanted[name], rtol=0, atol=2e-5 * scale)


def literal(values: NDArray[Any], name: str) -> str:
    """A float initializer in text form."""
    numbers = ", ".join(repr(float(np.float32(v))) for v in values.reshape(-1))
    return f"float[{','.join(str(n) for n in values.shape)}] {name} = {{{numbers}}}"
