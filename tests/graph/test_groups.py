"""Channel groups: exactly which indices hang together, what reads them, what computes them, what keeps them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from tests.passes.support import ints, net, taps

IMAGE = "float[N,2,H,W] x"


def groups_of(body: str, inputs: str = IMAGE, outputs: str = "float[N,1,a,b] y", **tables: Any) -> ChannelGroups:
    return ChannelGroups(Graph(net(body, inputs, outputs, **tables)))


def together(groups: ChannelGroups, **axes: int) -> set[str]:
    """Components as texts: the members of each on the given axes, such as ``a0 c0``."""
    members: dict[int, list[str]] = {}
    for tensor, axis in axes.items():
        for index, component in enumerate(groups.of((tensor, axis))):
            members.setdefault(int(component), []).append(f"{tensor}{index}")
    return {" ".join(names) for names in members.values()}


def kernel(outputs: int, inputs: int) -> Any:
    return taps(np.ones((outputs, inputs)))


def between(body: str, width: int, inputs: str = IMAGE, **tables: Any) -> ChannelGroups:
    """Some operators between a convolution c with four channels and another one that reads ``m``."""
    return groups_of(
        f"c = Conv (x, k1) {body} y = Conv (m, k2)", inputs, k1=kernel(4, 2), k2=kernel(1, width), **tables
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "width", "axes", "expected"),
    [
        ("m = Relu (c)", 4, {"c": 1, "m": 1}, {"c0 m0", "c1 m1", "c2 m2", "c3 m3"}),
        ("d = Conv (x, k3) m = Concat <axis = 1> (c, d)", 6, {"c": 1, "d": 1, "m": 1},
         {"c0 m0", "c1 m1", "c2 m2", "c3 m3", "d0 m4", "d1 m5"}),
        ("m = Concat <axis = 1> (c, c)", 8, {"c": 1, "m": 1}, {"c0 m0 m4", "c1 m1 m5", "c2 m2 m6", "c3 m3 m7"}),
        ("d = Conv (x, k4) m = Concat <axis = 2> (c, d)", 4, {"c": 1, "d": 1, "m": 1},
         {"c0 d0 m0", "c1 d1 m1", "c2 d2 m2", "c3 d3 m3"}),
        ("m, q = Split <axis = 1> (c, parts)", 1, {"c": 1, "m": 1, "q": 1}, {"c0 m0", "c1 q0", "c2 q1", "c3 q2"}),
        ("p, q = Split <axis = 1> (c) m = Add (p, q)", 2, {"c": 1, "m": 1}, {"c0 c2 m0", "c1 c3 m1"}),
        ("m = Slice (c, v1, v3, v1)", 2, {"c": 1, "m": 1}, {"c0", "c1 m0", "c2 m1", "c3"}),
        ("m = Slice (c, minus, far, v1)", 1, {"c": 1, "m": 1}, {"c0", "c1", "c2", "c3 m0"}),
        ("m = Gather <axis = 1> (c, picks)", 3, {"c": 1, "m": 1}, {"c0 m1", "c1", "c2 m0 m2", "c3"}),
        ("m = Pad (c, edges)", 4, {"c": 1, "m": 1}, {"c0 m0", "c1 m1", "c2 m2", "c3 m3"}),
        ("m = Pad (c, deep)", 6, {"c": 1, "m": 1}, {"m0", "c0 m1", "c1 m2", "c2 m3", "c3 m4", "m5"}),
        ("d = Conv (x, k4) m = Mul (c, d)", 4, {"c": 1, "d": 1, "m": 1},
         {"c0 d0 m0", "c1 d1 m1", "c2 d2 m2", "c3 d3 m3"}),
        ("m = Mul (c, gate)", 4, {"c": 1, "gate": 0, "m": 1},
         {"c0 gate0 m0", "c1 gate1 m1", "c2 gate2 m2", "c3 gate3 m3"}),
        ("m = Conv <group = 4> (c, kd)", 4, {"c": 1, "kd": 0, "m": 1},
         {"c0 kd0 m0", "c1 kd1 m1", "c2 kd2 m2", "c3 kd3 m3"}),
        ("m = Conv <group = 4> (c, kd8)", 8, {"c": 1, "m": 1}, {"c0 m0 m1", "c1 m2 m3", "c2 m4 m5", "c3 m6 m7"}),
        ("m = Conv <group = 2> (c, kg)", 4, {"c": 1, "kg": 0, "m": 1}, {"c0 c1 kg0 kg1 m0 m1", "c2 c3 kg2 kg3 m2 m3"}),
        ("m = Conv <group = 2> (c, kg2)", 2, {"c": 1, "m": 1}, {"c0 c1 m0", "c2 c3 m1"}),
        ("m = Conv (c, k5)", 3, {"c": 1, "k5": 1}, {"c0 k50", "c1 k51", "c2 k52", "c3 k53"}),
        ("m = Conv (c, k5)", 3, {"m": 1, "k5": 0}, {"m0 k50", "m1 k51", "m2 k52"}),
        ("m = ConvTranspose (c, k6)", 3, {"c": 1, "k6": 0}, {"c0 k60", "c1 k61", "c2 k62", "c3 k63"}),
        ("m = ConvTranspose (c, k6)", 3, {"m": 1, "k6": 1}, {"m0 k60", "m1 k61", "m2 k62"}),
        ("t = Transpose <perm = [0, 2, 3, 1]> (c) m = Transpose <perm = [0, 3, 1, 2]> (t)", 4, {"c": 1, "t": 3, "m": 1},
         {"c0 t0 m0", "c1 t1 m1", "c2 t2 m2", "c3 t3 m3"}),
        ("p = GlobalAveragePool (c) s = Sigmoid (p) m = Mul (c, s)", 4, {"c": 1, "s": 1, "m": 1},
         {"c0 s0 m0", "c1 s1 m1", "c2 s2 m2", "c3 s3 m3"}),
    ],
)  # fmt: skip
def test_components(body: str, width: int, axes: dict[str, int], expected: set[str]) -> None:
    groups = between(
        body, width, k3=kernel(2, 2), k4=kernel(4, 2), k5=kernel(3, 4), k6=kernel(4, 3), kd=kernel(4, 1),
        kd8=kernel(8, 1), kg=kernel(4, 2), kg2=kernel(2, 2), gate=np.ones((4, 1, 1), np.float32),
        parts=ints(1, 3), v1=ints(1), v3=ints(3), minus=ints(-1), far=ints(2**62), picks=ints(2, 0, -2),
        edges=ints(0, 0, 1, 1, 0, 0, 1, 1), deep=ints(0, 1, 0, 0, 0, 1, 0, 0),
    )  # fmt: skip
    assert together(groups, **axes) == expected
    assert groups.removable[groups.of(("c", 1))].all()


@pytest.mark.parametrize(
    ("body", "axes", "expected"),
    [
        ("m = Flatten (c)", {"c": 1, "m": 1, "w": 1}, {"c0 m0 m1 w0 w1", "c1 m2 m3 w2 w3"}),
        ("m = Reshape (c, flat)", {"c": 1, "m": 1, "w": 1}, {"c0 m0 m1 w0 w1", "c1 m2 m3 w2 w3"}),
        ("m = Reshape (c, open)", {"c": 1, "m": 1, "w": 1}, {"c0 m0 m1 w0 w1", "c1 m2 m3 w2 w3"}),
        ("s = Squeeze (c, axes) m = Flatten (s)", {"c": 1, "s": 1, "m": 1}, {"c0 s0 m0 m1", "c1 s1 m2 m3"}),
        ("t = Transpose <perm = [0, 2, 3, 1]> (c) m = Flatten (t)", {"c": 1, "t": 3}, {"c0 t0", "c1 t1"}),
    ],
)
def test_components_of_flattened_channels(body: str, axes: dict[str, int], expected: set[str]) -> None:
    groups = groups_of(
        f"c = Conv (x, k1) {body} y = Gemm <transB = 1> (m, w)", "float[N,2,1,2] x", "float[N,1] y",
        k1=kernel(2, 2), w=[[1, 2, 3, 4]], flat=ints(0, 4), open=ints(-1, 4), axes=ints(2),
    )  # fmt: skip
    assert together(groups, **axes) == expected
    assert groups.removable[groups.of(("c", 1))].all() == ("Transpose" not in body)


@pytest.mark.parametrize(
    ("body", "width", "reason"),
    [
        ("m = Pad (c, cut)", 3, "Pad: padded"),
        ('m = Pad <mode = "reflect"> (c, deep)', 6, "Pad: padded"),
        ("m = Softmax <axis = 1> (c)", 4, "Softmax: normalised over"),
        ("m = LRN <size = 3> (c)", 4, "LRN: normalised over"),
        ("m = CumSum (c, place)", 4, "CumSum: summed up along it"),
        ("m = Mul (c, z4)", 4, "graph input"),
        ("m = Add (c, z1)", 4, ""),
        ("r = ReduceMean <axes = [1]> (c) m = Add (c, r)", 4, "ReduceMean: reduced over"),
        ("m = Tile (c, twice)", 8, "Tile: repeated"),
        ("m = Slice (c, v0, v4, v1, v2)", 2, "Slice: sliced"),
        ("r = Reshape (c, wide) m = Conv (r, k7)", 1, "Reshape: split by Reshape"),
    ],
)
def test_why_channels_stay(body: str, width: int, reason: str) -> None:
    groups = between(
        body, width, "float[N,2,H,W] x, float[N,4,H,W] z4, float[N,1,H,W] z1", deep=ints(0, 1, 0, 0, 0, 1, 0, 0),
        cut=ints(0, -1, 0, 0, 0, 0, 0, 0), place=np.array(1), twice=ints(1, 2, 1, 1),
        v0=ints(0), v4=ints(4), v1=ints(1), v2=ints(2),
        wide=ints(0, 2, 2, -1), k7=kernel(1, 2),
    )  # fmt: skip
    components = groups.of(("c", 1))
    assert {groups.why_locked(int(c)) for c in components} == {reason}
    assert groups.locked[components].all() == groups.lock_counts(components)[reason] / 4 == bool(reason)
    assert groups.removable[components].all() == (not reason)


@pytest.mark.parametrize(
    ("tensor", "axis", "reason"),
    [
        ("x", 1, "graph input"),
        ("y", 1, "graph output"),
        ("c", 1, ""),
        ("c", 2, "Conv mixes this axis"),
        ("k1", 3, "Conv mixes this axis"),
    ],
)
def test_ends_and_space_stay(tensor: str, axis: int, reason: str) -> None:
    groups = groups_of(
        "c = Conv (x, k1) y = Conv (c, k2)", "float[N,2,5,5] x", k1=taps([[1, 1]] * 4, 3), k2=kernel(1, 4)
    )
    assert groups.why_locked(int(groups.of((tensor, axis))[0])) == reason


def test_readers_and_units() -> None:
    groups = groups_of(
        "c = Conv (x, k1) d = Conv <group = 4> (c, kd) r = Relu (d) p = Conv (r, k2) q = Conv (r, k2) y = Add (p, q)",
        k1=kernel(4, 2), kd=kernel(4, 1), k2=kernel(1, 4),
    )  # fmt: skip
    assert [units.axis for units in groups.units] == [("c", 1), ("d", 1), ("p", 1), ("q", 1)]
    assert [reader.layer.reads for reader in groups.readers] == [("x", 1), ("r", 1), ("r", 1)]
    for reader in groups.readers[1:]:
        np.testing.assert_array_equal(reader.components, groups.of(("c", 1)))


def test_layers_of_one_weight_do_not_share_components() -> None:
    groups = groups_of("p = Conv (x, k1) q = Conv (x, k1) r = Concat <axis = 1> (p, q) y = Conv (r, k2)",
                       k1=kernel(2, 2), k2=kernel(1, 4))  # fmt: skip
    assert together(groups, p=1, q=1) == {"p0", "p1", "q0", "q1"}


def test_a_reader_in_a_sub_graph_keeps_what_it_sees() -> None:
    body = """c = Conv (x, k1) d = Conv (x, k1) r = Relu (c) s = Relu (d)
        z = If (flag) <then_branch = yes () => (float[N,2,H,W] p) { p = Neg (r) },
                       else_branch = no () => (float[N,2,H,W] q) { q = Neg (r) }>
        e = Conv (s, k2) y = Conv (z, k2)"""
    groups = groups_of(body, "float[N,2,H,W] x, bool flag", k1=kernel(2, 2), k2=kernel(1, 2))
    assert groups.why_locked(int(groups.of(("c", 1))[0])) == "read by a sub-graph"
    assert groups.why_locked(int(groups.of(("d", 1))[0])) == ""


def test_an_empty_graph() -> None:
    assert groups_of("", outputs="float[N,2,H,W] x").count == 0
