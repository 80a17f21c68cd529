"""What all entrywise operators share: channel links under broadcasting against hand-made expectations."""

from __future__ import annotations

import pytest

from onnxprune.operators.base import NodeView
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.elementwise import Elementwise
from tests.operators.entrywise import ELEMENTWISE, INF, bounds, box, ends, view


def channels(node: NodeView) -> tuple[set[str], dict[str, str]] | None:
    """Linked pairs of axes and locks, an axis written as name and number."""
    shapes = {name: t.shape or () for name, t in node.types.items()}
    links = ChannelMap({(n, a): d for n, s in shapes.items() for a, d in enumerate(s) if isinstance(d, int)})
    if not ELEMENTWISE[node.op].channels(node, links):
        return None
    assert {("y", axis) for axis in range(len(shapes["y"]))} <= links.mentioned
    pairs = {f"{k.left[0]}{k.left[1]}-{k.right[0]}{k.right[1]}" for k in links.links}
    return pairs, {f"{name}{axis}": reason for (name, axis), reason in links.locks.items()}


@pytest.mark.parametrize(
    ("inputs", "constants", "pairs", "locks"),
    [
        ("float[2,8,5] a, float[2,8,5] b", "", "a0-y0 b0-y0 a1-y1 b1-y1 a2-y2 b2-y2", ""),
        ("float[N,2,5,5] a", "float[2,1,1] b = {1,2}", "a1-y1 b0-y1 a2-y2 a3-y3", "b1 b2"),
        ("float[N,8,5,5] a", "float b = {2}", "a1-y1 a2-y2 a3-y3", ""),
        ("float[N,8] a", "float[1] b = {2}", "a1-y1", "b0"),
        ("float[N,8,H,W] a, float[N,8,1,1] b", "", "a1-y1 b1-y1", "b2 b3"),
        ("float[1,8,1,1] a, float[N,8,1,1] b", "", "a1-y1 b1-y1 a2-y2 b2-y2 a3-y3 b3-y3", "a0"),
        ("float[N,8] a, float[M,8] b", "", "a1-y1 b1-y1", "a0? b0? y0?"),
        ("float[8,1] a, float[1,4] b", "", "a0-y0 b1-y1", "a1 b0"),
    ],
)
def test_channels_under_broadcasting(inputs: str, constants: str, pairs: str, locks: str) -> None:
    reasons = {lock[:2]: "size unknown" if lock.endswith("?") else "broadcast" for lock in locks.split()}
    for op in ("Mul", "Sub"):
        assert channels(view(f"y = {op}(a, b)", inputs, 21, constants)) == (set(pairs.split()), reasons)


def test_channels_of_other_arities_and_of_unknown_rank() -> None:
    assert channels(view("y = Exp(x)", "float[N,8,5] x")) == ({"x1-y1", "x2-y2"}, {})
    assert channels(view("y = Cast <to = 7> (x)", "float[4] x")) == ({"x0-y0"}, {})
    three = channels(view("y = Where(c, a, b)", "bool[8,1] c, float[8,4] a, float[4] b"))
    assert three == ({"c0-y0", "a0-y0", "a1-y1", "b0-y1"}, {"c1": "broadcast"})
    for op, arguments in {"Exp": "x", "Add": "x, z"}.items():
        node = NodeView(view(f"y = {op}({arguments})", "float[4] x, float[4] z").node, {}, 21)
        assert not ELEMENTWISE[op].channels(node, ChannelMap({}))


def test_old_broadcasting_is_opaque() -> None:
    node = view("y = Add <broadcast = 1, axis = 1> (a, b)", "float[N,8,5,5] a, float[8] b", 6)
    assert ELEMENTWISE["Add"].interval(node, [box(0, 1), box(0, 1)]) is None
    assert not ELEMENTWISE["Add"].channels(node, ChannelMap({}))


def test_bounds_without_axes_beside_an_operand_of_unknown_rank() -> None:
    node, three = view("y = Add(a, b)", "double[] a, double[3] b"), box([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert ends(bounds(node, box(0, 1), three)) == pytest.approx((0, 4))
    assert bounds(node, box([[0.0]], [[1.0]]), three).shape == (1, 3)


def test_what_the_engine_asks_of_entrywise_operators() -> None:
    entrywise = {op: cls for op, cls in ELEMENTWISE.items() if isinstance(cls, Elementwise)}
    assert entrywise.keys() == ELEMENTWISE.keys()
    homogeneous = {op for op, cls in entrywise.items() if cls.homogeneous}
    assert homogeneous == {"Add", "Sub", "Sum", "Mean", "Max", "Min", "Neg", "Abs", "Identity", "Dropout"}
    expected = {"Abs": (0, INF), "Neg": None, "Identity": (-INF, INF), "Dropout": (-INF, INF)}
    for op, known in expected.items():
        assert entrywise[op].identity_on(view(f"y = {op}(x)", "double[N] x")) == known
