"""Constant targets for computed Reshapes: right at every size, or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.graph.graph import Graph
from onnxprune.graph.targets import constant_target
from tests.helpers import parse, session

TABLES: dict[str, Any] = {
    "i0": np.array(0), "i1": np.array(1), "last": np.array(-1), "v0": np.array([0]), "v1": np.array([1]),
    "v2": np.array([2]), "v9": np.array([999]), "pair": np.array([0, 2]), "swap": np.array([2, 1]),
    "one": np.array([1]), "two": np.array([2]), "four": np.array([4]), "eight": np.array([8]),
    "open": np.array([-1]), "zero": np.array([0]), "minus": np.array([-1]), "back": np.array([-2]),
}  # fmt: skip
SHAPE = "s = Shape (x)"


def reshape(
    body: str, inputs: str = "float[N,4,W] x", attribute: str = "", functions: str = "", opset: int = 17
) -> Any:
    tables = {name: v for name, v in TABLES.items() if f" {name}" in body or f"({name}" in body}
    imports = ', "local": 1' if functions else ""
    model = parse(
        f"{body} y = Reshape {attribute} (x, t)",
        inputs,
        "float y",
        tables,
        imports=imports,
        functions=functions,
        opset=opset,
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def target(model: Any) -> list[int] | None:
    graph = Graph(model)
    found = constant_target(graph, graph.nodes[-1])
    return None if found is None else found.tolist()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("g = Gather (s, i0) u = Unsqueeze (g, v0) t = Concat <axis = 0> (u, open)", [0, -1]),
        ("g = Gather (s, v0) t = Concat <axis = 0> (g, open)", [0, -1]),
        ("g = Gather (s, v0) t = Concat <axis = 0> (g, four, open)", [0, 4, -1]),
        ("g = Slice (s, v0, v1) t = Concat <axis = 0> (g, open)", [0, -1]),
        ("g = Slice (s, back, v9) t = Concat <axis = 0> (open, g)", [-1, 4, 0]),
        ("g = Slice (s, v0, v1, zero) t = Concat <axis = 0> (g, open)", [0, -1]),
        ("g = Gather (s, pair) t = Concat <axis = 0> (g, four)", None),
        ("g = Gather (s, last) u = Unsqueeze (g, v0) t = Concat <axis = 0> (four, u, open)", None),
        ("g = Gather (s, i1) u = Unsqueeze (g, v0) t = Concat <axis = 0> (open, u)", [-1, 4]),
        ("t = Identity (s)", [0, 4, 0]),
        ("c = Cast <to = 6> (s) t = Cast <to = 7> (c)", [0, 4, 0]),
        ("g = Gather (s, v0) d = Mul (g, two) t = Concat <axis = 0> (d, two, open)", None),
        ("g = Gather (s, v0) d = Mul (g, two) t = Concat <axis = 0> (d, zero)", None),
        ("g = Gather (s, v0) e = Gather (s, v2) d = Mul (g, e) t = Concat <axis = 0> (d, four)", [-1, 4]),
        ("g = Gather (s, v0) e = Gather (s, v2) d = Mul (g, e) t = Concat <axis = 0> (four, d)", [4, -1]),
        ("g = Gather (s, swap) h = Gather (s, v0) t = Concat <axis = 0> (h, g)", None),
        ("g = Gather (s, v2) t = Concat <axis = 0> (open, g)", None),
        ("r = ReduceProd (s) u = Reshape (r, one) t = Identity (u)", [-1]),
        ("g = Gather (s, v0) t = Concat <axis = 0> (g, n)", None),
    ],
)
def test_targets(body: str, expected: list[int] | None) -> None:
    model = reshape(f"{SHAPE} {body}", "float[N,4,W] x, int64[2] n")
    assert target(model) == expected


@pytest.mark.parametrize("opset", [15, 17])
@pytest.mark.parametrize(
    ("attribute", "expected"),
    [("<end = 2>", [0, 4, -1]), ("<start = -3, end = -1>", [0, 4, -1]), ("<start = 1, end = 2>", [4, -1])],
)
def test_a_part_of_the_shape(attribute: str, expected: list[int], opset: int) -> None:
    model = reshape(f"s = Shape {attribute} (x) t = Concat <axis = 0> (s, open)", opset=opset)
    assert target(model) == expected


def test_zeros_that_mean_zero() -> None:
    body = f"{SHAPE} g = Gather (s, v0) t = Concat <axis = 0> (g, open)"
    assert target(reshape(body, attribute="<allowzero = 1>")) is None


def test_the_size_of_another_tensor() -> None:
    body = "s = Shape (z) g = Gather (s, v0) t = Concat <axis = 0> (g, four, open)"
    assert target(reshape(body, "float[N,4,W] x, float[N,7] z")) == [0, 4, -1]
    assert target(reshape(body, "float[N,4,W] x, float[M,7] z")) is None


def test_an_operator_of_another_domain_is_not_meant() -> None:
    functions = (
        '<domain: "local", opset_import: ["": 17]> Shape (a) => (b) { b = Constant <value = int64[2] {-1, 2}> () }'
    )
    assert target(reshape("t = local.Shape (x)", functions=functions)) is None


BODIES = [
    "g = Gather (s, i0) u = Unsqueeze (g, v0) t = Concat <axis = 0> (u, open)",
    "g = Gather (s, v0) e = Gather (s, v2) d = Mul (g, e) t = Concat <axis = 0> (d, four)",
    "g = Slice (s, back, v9) t = Concat <axis = 0> (open, g)",
    "r = ReduceProd (s) u = Reshape (r, one) t = Identity (u)",
    "t = Identity (s)",
    "g = Gather (s, i1) u = Unsqueeze (g, v0) t = Concat <axis = 0> (u, open)",
]


@pytest.mark.parametrize("body", BODIES)
def test_the_constant_gives_the_same_shape_at_every_size(body: str) -> None:
    model = reshape(f"{SHAPE} {body}")
    found = target(model)
    assert found is not None
    constant = parse("y = Reshape (x, t)", "float[N,4,W] x", "float y", {"t": np.array(found)})
    constant.graph.output[0].type.tensor_type.ClearField("shape")
    for batch, width in ((1, 1), (2, 3), (4, 4), (3, 2), (1, 4)):
        x = np.arange(batch * 4 * width, dtype=np.float32).reshape(batch, 4, width)
        expected, actual = (session(m).run(None, {"x": x})[0] for m in (model, constant))
        np.testing.assert_array_equal(actual, expected)
