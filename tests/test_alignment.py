"""Channel counts rounded up to multiples: per layer, in residual groups, and over whole runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.alignment import Kept, protect, translate
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from tests.helpers import assert_equal_models
from tests.passes.support import ints, net, taps


def chain(*sizes: int) -> onnx.ModelProto:
    """Dense layers of these sizes; all but every third unit of each are dead."""
    tables: dict[str, Any] = {}
    body, source, width = "", "x", 2
    for number, size in enumerate(sizes):
        rows = np.ones((size, width), np.float32)
        rows[np.arange(size) % 3 != 0] = 0
        rows[:, 0] *= np.arange(1, size + 1)
        tables |= {f"w{number}": rows, f"b{number}": np.zeros(size, np.float32)}
        body += f"h{number} = Gemm <transB = 1> ({source}, w{number}, b{number}) r{number} = Relu (h{number}) "
        source, width = f"r{number}", size
    body += f"y = Gemm <transB = 1> ({source}, last)"
    return net(body, last=np.ones((1, width), np.float32), **tables)


def kept(**layers: Sequence[int]) -> Kept:
    return {name: ints(*indices) for name, indices in layers.items()}


def groups_of(model: onnx.ModelProto) -> ChannelGroups:
    return ChannelGroups(Graph(model))


@pytest.mark.parametrize(
    ("total", "stay", "multiple", "expected"),
    [
        (16, 5, 1, 5), (16, 5, 4, 8), (16, 5, 8, 8), (16, 5, 16, 16), (16, 8, 8, 8), (16, 9, 8, 16),
        (6, 3, 4, 4), (6, 3, 8, 6), (6, 5, 4, 6), (6, 6, 4, 6), (20, 17, 16, 20), (3, 1, 16, 3),
    ],
)  # fmt: skip
def test_rounded_up_but_never_beyond_what_there_was(total: int, stay: int, multiple: int, expected: int) -> None:
    groups = groups_of(chain(total))
    before = kept(h0=range(total - stay, total))
    after = protect(groups, before, multiple)["h0"]
    assert len(after) == expected
    assert set(range(total - stay, total)) <= after <= set(range(total))
    assert protect(groups, kept(h0=sorted(after)), multiple)["h0"] == after


def test_layers_that_lost_nothing_keep_everything() -> None:
    protected = protect(groups_of(chain(6, 5)), kept(h0=[0, 3]), 4)
    assert protected == {
        "h0": frozenset({0, 1, 2, 3}), "h1": frozenset(range(5)), "y": frozenset({0})
    }  # fmt: skip


def test_layers_are_rounded_each_on_its_own() -> None:
    protected = protect(groups_of(chain(12, 9)), kept(h0=[0, 3, 6, 9], h1=[0, 3, 6]), 4)
    assert {name: len(units) for name, units in protected.items()} == {"h0": 4, "h1": 4, "y": 1}


RESIDUAL = """
    c = Conv (x, k1) r = Relu (c) d = Conv (r, k2) e = Conv (x, k3) s = Add (d, e) m = Relu (s) y = Conv (m, k4)
"""


def residual(body: str = RESIDUAL, size: int = 8) -> onnx.ModelProto:
    ones = {"k1": (6, 1), "k2": (size, 6), "k3": (size, 1), "k4": (1, size)}
    tables: dict[str, Any] = {name: taps(np.ones(shape)) for name, shape in ones.items()}
    return net(body, "float[N,1,H,W] x", "float[N,a,b,c] y", **tables)


@pytest.mark.parametrize(("multiple", "expected"), [(1, 3), (4, 4), (8, 8), (16, 8)])
def test_branches_of_a_sum_keep_the_same_channels(multiple: int, expected: int) -> None:
    protected = protect(groups_of(residual()), kept(c=[0], d=[1, 5, 7], e=[1, 5, 7]), multiple)
    assert protected["d"] == protected["e"]
    assert protected["d"] >= {1, 5, 7}
    assert len(protected["d"]) == expected
    assert len(protected["c"]) == min(multiple, 6)


def test_layers_that_share_some_channels_are_all_rounded() -> None:
    """c has eight channels, d four that are added to the first four of c."""
    body = """
        c = Conv (x, k8) p, q = Split <axis = 1> (c) d = Conv (x, k4) s = Add (p, d)
        m = Concat <axis = 1> (s, q) r = Relu (m) y = Conv (r, k1)
    """
    model = net(
        body, "float[N,1,H,W] x", "float[N,1,H,W] y",
        k8=taps(np.ones((8, 1))), k4=taps(np.ones((4, 1))), k1=taps(np.ones((1, 8))),
    )  # fmt: skip
    protected = protect(groups_of(model), kept(c=[0, 4], d=[0]), 4)
    assert {i for i in protected["c"] if i < 4} == protected["d"]
    assert {name: len(units) % 4 for name, units in protected.items() if name != "y"} == {
        "c": 0, "d": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "protected", "after"),
    [([0, 2, 3, 5], {0, 3, 5}, {0, 2, 3}), ([0, 2, 3, 5], {1, 4}, set()), ([], {1}, set()), ([7], {7}, {0})],
)
def test_protected_units_are_renumbered(before: list[int], protected: set[int], after: set[int]) -> None:
    assert translate({"layer": frozenset(protected)}, {"layer": ints(*before)}) == {"layer": frozenset(after)}
    assert translate({"layer": frozenset(protected)}, {}) == {"layer": frozenset(protected)}


def sizes(model: onnx.ModelProto) -> list[int]:
    """Units per layer, the last one left out."""
    arrays: Mapping[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
    return [int(arrays[node.input[1]].dims[0]) for node in model.graph.node if node.op_type == "Gemm"][:-1]


@pytest.mark.parametrize(
    ("align", "expected"), [(1, [4, 5]), (4, [4, 8]), (8, [8, 8]), (16, [12, 15])]
)  # fmt: skip
def test_a_run_rounds_up_and_a_second_run_changes_nothing(align: int, expected: list[int]) -> None:
    model = chain(12, 15)
    passes = "tidy,remove_inactive"
    result = onnxprune.optimize(model, goal="size", align=align, passes=passes)
    assert sizes(result.model) == expected
    assert result.report["align"] == align
    assert result.modified == (align < 16)
    recorded = [p.value for p in result.model.metadata_props if p.key == "onnxprune.align"]
    assert recorded == ([str(align)] if result.modified else [])
    assert_equal_models(model, result.model)
    again = onnxprune.optimize(result.model, goal="size", align=align, passes=passes)
    assert not again.modified
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_a_smaller_multiple_goes_on_where_a_larger_one_stopped() -> None:
    first = onnxprune.optimize(chain(12, 15), goal="size", align=8, passes="remove_inactive")
    second = onnxprune.optimize(first.model, goal="size", align=1, passes="remove_inactive")
    direct = onnxprune.optimize(chain(12, 15), goal="size", align=1, passes="remove_inactive")
    assert sizes(second.model) == sizes(direct.model) == [4, 5]
