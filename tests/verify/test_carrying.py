"""What errors of the inputs of a node do to its output, against runs of the node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from onnxprune.verify.carrying import carried
from onnxprune.verify.forms import Form
from onnxprune.verify.forward import Forward
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.sides import Side
from tests.helpers import parse

SIZE = 0.3
"""By how much inputs are off."""
TABLE = {"w": np.array([[1, -2, 3], [0.5, 4, 0]], np.float32), "v": np.array([3, -1], np.float32)}
DENSE = "float[1,2] x, float[1,2] z", "float[1,?] y"
IMAGE = "float[1,1,4,4] x, float[1,1,4,4] z", "float[?,?,?,?] y"
RESIZE = 'y = Resize <mode = "{}", coordinate_transformation_mode = "half_pixel"> (x, , sizes)'


def sides(body: str, ends: tuple[str, str]) -> tuple[Any, Side]:
    sizes = np.array([1.0, 1.0, 2.0, 2.0], np.float32)
    arguments = body.rsplit("(", maxsplit=1)[-1]
    tables: dict[str, Any] = {name: table for name, table in {**TABLE, "sizes": sizes}.items() if name in arguments}
    model = parse(body, *ends, tables)
    net = Network.of(model)
    box = Interval.of(np.array(-2.0), np.array(2.0))
    return model, Side(net, Forward(net, dict.fromkeys(net.inputs, box)).run(), False)


def largest(model: Any, shape: tuple[int, ...]) -> float:
    """The largest difference that errors of the inputs made in many runs, among them ones at corners."""
    rng = np.random.default_rng(0)
    run = ReferenceEvaluator(model)
    found = 0.0
    for _ in range(300):
        feeds = {name: rng.uniform(-2, 2, shape) * rng.choice([1, 0.999]) for name in ("x", "z")}
        feeds = {name: np.where(rng.random(shape) < 0.5, np.sign(values) * 2, values) for name, values in feeds.items()}
        other = {name: np.clip(values + rng.choice([-SIZE, SIZE], shape), -2, 2) for name, values in feeds.items()}
        one, two = (
            np.asarray(next(iter(run.run(None, {n: v.astype(np.float32) for n, v in f.items()}))))
            for f in (feeds, other)
        )
        found = max(found, float(np.abs(one - two).max()))
    return found


@pytest.mark.parametrize(
    ("body", "ends", "factor"),
    [
        ("y = Add (x, x)", DENSE, 2.0),
        ("y = Add (x, z)", DENSE, 2.0),
        ("y = Sub (x, z)", DENSE, 2.0),
        ("y = Sum (x, z, x)", DENSE, 3.0),
        ("y = Mul (x, z)", DENSE, 4.0),
        ("y = Mul (x, x)", DENSE, 4.0),
        ("y = Concat <axis = 1> (x, z)", DENSE, 1.0),
        ("y = Sigmoid (x)", DENSE, 0.25),
        ("y = Softmax (x)", DENSE, 1.0),
        ("y = MaxPool <kernel_shape = [2, 2]> (x)", IMAGE, 1.0),
        (RESIZE.format("linear"), IMAGE, 1.0),
    ],
)
def test_the_factor_holds_and_is_not_too_large(body: str, ends: tuple[str, str], factor: float) -> None:
    model, side = sides(body, ends)
    net = side.net
    known = {name: Form.same(name, exact=False, deviation=SIZE, rounding=SIZE / 2) for name in net.inputs}
    found = carried(side, side, net.nodes[0], known, "y")
    assert found is not None
    assert found == pytest.approx((factor * SIZE, factor * SIZE / 2))
    assert largest(model, (1, 2) if ends is DENSE else (1, 1, 4, 4)) <= found[0] * (1 + 1e-5)


@pytest.mark.parametrize(("body", "factor"), [("y = MatMul (x, w)", 6.0), ("y = Mul (x, v)", 3.0)])
def test_affine_nodes_are_asked_for(body: str, factor: float) -> None:
    model, side = sides(body, DENSE)
    known = {name: Form.same(name, exact=False, deviation=SIZE, rounding=0.0) for name in side.net.inputs}
    assert carried(side, side, side.net.nodes[0], known, "y") is None
    found = carried(side, side, side.net.nodes[0], known, "y", affine=True)
    assert found == pytest.approx((factor * SIZE, 0))
    assert found is not None
    assert factor * SIZE * 0.9 <= largest(model, (1, 2)) <= found[0] * (1 + 1e-5)


@pytest.mark.parametrize(
    ("body", "ends"),
    [("y = Exp (x)", DENSE), ("y = Div (x, z)", DENSE), (RESIZE.format("cubic"), IMAGE)],
)
def test_where_errors_may_grow_without_end_nothing_is_said(body: str, ends: tuple[str, str]) -> None:
    _, side = sides(body, ends)
    known = {name: Form.same(name, exact=False, deviation=SIZE, rounding=SIZE) for name in side.net.inputs}
    assert carried(side, side, side.net.nodes[0], known, "y") is None


def test_rounding_alone_is_carried_as_unbounded() -> None:
    _, side = sides("y = Exp (x)", DENSE)
    known = {name: Form.same(name, exact=False, deviation=0.0, rounding=SIZE) for name in side.net.inputs}
    assert carried(side, side, side.net.nodes[0], known, "y") == (0.0, np.inf)


def test_whole_numbers_jump() -> None:
    _, side = sides("y = Cast <to = 7> (x)", ("float[1,2] x, float[1,2] z", "int64[1,2] y"))
    known = {name: Form.same(name, exact=False, deviation=SIZE, rounding=0.0) for name in side.net.inputs}
    assert carried(side, side, side.net.nodes[0], known, "y") is None
