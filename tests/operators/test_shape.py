"""Values known from the node: Shape, Size and constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.operators.base import NodeView
from onnxprune.operators.channels import ChannelMap
from tests.operators.support import RULES, Case, end_lists

FLAT = "float[3,4] x"

SHAPES: list[tuple[str, str, dict[str, Any]]] = [
    ("s = Shape(x)", "y = Identity(s)", {"locked": {0, 1, 2}}),
    ("s = Shape(x)", "y = Gather(s, i)", {"locked": {0}}),
    ("s = Shape(x)", "y = Gather(s, j)", {"locked": {0, 2}}),
    ("s = Shape(x)", "y = Slice(s, one, two)", {"locked": {1}}),
    ("s = Shape(x)", "k = Gather(s, i) y = Slice(s, one, two)", {"locked": {0, 1}}),
    ("s = Shape(x)", "y = Slice(s, one, p)", {"locked": {0, 1, 2}}),
    ("s = Shape<start=1>(x)", "y = Gather(s, j)", {"locked": {1, 2}}),
    ("s = Shape<start=-2, end=-1>(x)", "y = Identity(s)", {"locked": {1}}),
    ("s = Shape(x)", "y = Gather(x, s)", {"locked": {0, 1, 2}}),
    ("s = Size(x)", "y = Identity(s)", {"locked": {0, 1, 2}}),
]


@pytest.mark.parametrize(("body", "reader", "expected"), SHAPES)
def test_only_sizes_that_are_read_are_locked(body: str, reader: str, expected: dict[str, set[int]]) -> None:
    constants = "int64 i = {0}, int64[2] j = {0, -1}, int64[1] one = {1}, int64[1] two = {2}"
    case = Case(f"{body} {reader}", "float[2,3,4] x, int64[1] p", constants)
    graph = case.graph()
    last = case.node(graph)
    node = NodeView(graph.nodes[0], last.types, case.opset)
    links = ChannelMap({("x", axis): size for axis, size in enumerate((2, 3, 4))})
    assert RULES[node.op].channels(node, links)
    assert {axis for name, axis in links.locks if name == "x"} == expected["locked"]
    assert {axis for name, axis in links.mentioned if name == "x"} == {0, 1, 2}


def test_a_shape_nobody_reads_may_be_a_graph_output() -> None:
    links = Case("y = Shape(x)", FLAT).links()
    assert links is not None
    assert {("x", 0), ("x", 1)} <= set(links.locks)


@pytest.mark.parametrize(
    ("body", "lower", "upper"),
    [
        ("y = Shape(x)", [0, 4, 0], [np.inf, 4, np.inf]),
        ("y = Shape<start=1, end=2>(x)", [4], [4]),
        ("y = Size(x)", 0, np.inf),
        ("y = Constant<value = float[2] {1, 2.5}>()", [1, 2.5], [1, 2.5]),
        ("y = Constant<value_int = 3>()", 3, 3),
        ("y = Constant<value_floats = [1.0, 2.0]>()", [1, 2], [1, 2]),
        ("y = ConstantOfShape<value = float[1] {-2}>(t)", -2, -2),
        ("y = ConstantOfShape(t)", 0, 0),
    ],
)
def test_values_known_from_the_node(body: str, lower: object, upper: object) -> None:
    (y,) = Case(body, "float[N,4,H] x, int64[K] t").intervals({}) or ()
    assert end_lists(y) == [lower, upper]


def test_size_of_a_static_tensor() -> None:
    (y,) = Case("y = Size(x)", FLAT).intervals({}) or ()
    assert end_lists(y) == [12, 12]


def test_constants_that_float64_cannot_hold_are_opaque() -> None:
    assert Case("y = Constant<value_int = 9007199254740993>()", FLAT).intervals({}) is None
    assert Case('y = Constant<value_string = "a">()', FLAT).intervals({}) is None
