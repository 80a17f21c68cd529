"""The routine that removes, folds and moves: every number worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from onnxprune.graph.rewrite import Applied, Fold, Move, Rewrite, apply, shift_bias, spare_last
from onnxprune.operators.linear import linear_layer
from onnxprune.pass_api import PassReport
from tests.passes.support import Done, ints, net, taps

BODY = "h = Gemm <transB = 1> (x, w1, b1) r = Relu (h) y = Gemm <transB = 1> (r, w2, b2)"
TABLES: dict[str, Any] = {"w1": [[1, 2], [3, 4], [5, 6]], "b1": [7, 8, 9], "w2": [[1, 2, 3], [4, 5, 6]], "b2": [10, 20]}


def rewritten(
    model: onnx.ModelProto,
    remove: list[int],
    folds: list[Fold] | None = None,
    moves: list[Move] | None = None,
    tensor: str = "r",
) -> tuple[Done, Applied]:
    """Remove indices of axis 1 of a tensor; the last layer is the last reader."""
    graph = Graph(model)
    groups = ChannelGroups(graph)
    components = {int(groups.of((tensor, 1))[index]) for index in remove}
    applied = apply(graph, groups, Rewrite(components, folds or [], moves or []))
    result = graph.to_model()
    onnx.checker.check_model(result, full_check=True)
    return Done(result, PassReport()), applied


def dense(body: str = BODY, **options: Any) -> onnx.ModelProto:
    return net(body, outputs="float[N,2] y", **{**TABLES, **options})


def test_removal_alone_takes_rows_biases_and_columns() -> None:
    done, applied = rewritten(dense(), [1])
    assert done.layer("h") == [[[1, 2], [5, 6]], [7, 9]]
    assert done.layer("y") == [[[1, 3], [4, 6]], [10, 20]]
    assert (applied.removed, applied.rounding) == ({"h": [1]}, 0.0)


@pytest.mark.parametrize(
    ("value", "bias"), [(0.0, [10, 20]), (3.0, [10 + 2 * 3, 20 + 5 * 3]), (-0.5, [10 - 1, 20 - 2.5])]
)
def test_a_fold_adds_column_times_value_to_the_bias(value: float, bias: list[float]) -> None:
    done, _ = rewritten(dense(), [1], [Fold(1, 1, value)])
    assert done.layer("y") == [[[1, 3], [4, 6]], bias]


def test_folds_add_up() -> None:
    done, applied = rewritten(dense(), [0, 2], [Fold(1, 0, 2.0), Fold(1, 2, 10.0)])
    assert done.layer("y") == [[[2], [5]], [10 + 2 + 30, 20 + 8 + 60]]
    assert applied.removed == {"h": [0, 2]}


def test_a_move_adds_a_multiple_of_one_column_to_another() -> None:
    done, _ = rewritten(dense(), [1], moves=[Move(1, 1, 0, 0.5)])
    assert done.layer("y") == [[[1 + 0.5 * 2, 3], [4 + 0.5 * 5, 6]], [10, 20]]


def test_two_moves_onto_one_column_and_a_fold() -> None:
    model = dense(w1=[[1, 2]] * 4, b1=[1] * 4, w2=[[1, 2, 3, 4], [5, 6, 7, 8]])
    done, _ = rewritten(model, [1, 2, 3], [Fold(1, 3, 2.0)], [Move(1, 1, 0, 2.0), Move(1, 2, 0, -1.0)])
    assert done.layer("y") == [[[1 + 2 * 2 - 3], [5 + 2 * 6 - 7]], [10 + 2 * 4, 20 + 2 * 8]]


def test_moves_use_the_columns_as_they_were() -> None:
    model = dense(w1=[[1, 2]] * 4, b1=[1] * 4, w2=[[1, 2, 3, 4], [5, 6, 7, 8]])
    done, _ = rewritten(model, [2], moves=[Move(1, 2, 1, 1.0), Move(1, 1, 0, 1.0)])
    assert done.layer("y")[0] == [[1 + 2, 2 + 3, 4], [5 + 6, 6 + 7, 8]]


def test_rounding_is_the_largest_over_biases_and_columns() -> None:
    _, folded = rewritten(dense(w2=[[1, 1, 1], [1, 1, 1]]), [1], [Fold(1, 1, 1 / 3)])
    exact = 20 + 1 / 3
    assert folded.rounding == abs(float(np.float32(exact)) - exact)
    _, moved = rewritten(dense(w2=[[1, 1, 1], [1, 1, 1]]), [1], moves=[Move(1, 1, 0, 1 / 3)])
    assert moved.rounding == abs(float(np.float32(4 / 3)) - 4 / 3)


CONV = "c = Conv (x, k1, b1) r = Relu (c) y = {} (r, k2, b2)"
IMAGE: dict[str, Any] = {"inputs": "float[N,2,H,W] x", "outputs": "float[N,2,a,b] y"}


def test_a_fold_into_a_kernel_sums_its_taps() -> None:
    tables: dict[str, Any] = {
        "k1": taps([[1, 2], [3, 4], [5, 6]]),
        "b1": [7, 8, 9],
        "k2": taps([[1, 2, 3], [4, 5, 6]], 2),
        "b2": [10, 20],
    }
    done, _ = rewritten(net(CONV.format("Conv"), **IMAGE, **tables), [1], [Fold(1, 1, 3.0)])
    assert done.layer("y") == [[[1, 3], [4, 6]], [10 + 4 * 2 * 3, 20 + 4 * 5 * 3]]


def test_a_move_in_a_transposed_kernel() -> None:
    tables: dict[str, Any] = {
        "k1": taps([[1, 2], [3, 4], [5, 6]]),
        "b1": [7, 8, 9],
        "k2": taps([[1, 4], [2, 5], [3, 6]], 2),
        "b2": [10, 20],
    }
    done, _ = rewritten(net(CONV.format("ConvTranspose"), **IMAGE, **tables), [1], moves=[Move(1, 1, 2, 2.0)])
    assert done.layer("y") == [[[1, 4], [3 + 2 * 2, 6 + 2 * 5]], [10, 20]]


def test_every_tap_moves_by_itself() -> None:
    kernel = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    model = net(
        "c = Conv (x, k1) y = Conv (c, k2)", "float[N,1,H,W] x", "float[N,1,a,b] y", k1=taps([[1], [1]]), k2=kernel
    )
    done, _ = rewritten(model, [1], moves=[Move(1, 1, 0, 2.0)], tensor="c")
    (weight,) = [t for t in done.model.graph.initializer if t.name == "k2"]
    assert onnx.numpy_helper.to_array(weight).tolist() == [[[[0 + 8, 1 + 10], [2 + 12, 3 + 14]]]]


SHARED = """
    h = Gemm <transB = 1> (x, w1, b1) r = Relu (h)
    p = Gemm <transB = 1> (r, w2, b2) q = Gemm <transB = 1> (r, w2, b2) y = Sub (p, q)
"""


def test_shared_weights_with_equal_moves_stay_shared() -> None:
    done, _ = rewritten(dense(SHARED), [1], moves=[Move(1, 1, 0, 2.0), Move(2, 1, 0, 2.0)])
    assert done.layer("p") == done.layer("q") == [[[5, 3], [14, 6]], [10, 20]]
    assert list(done.node("p").input)[1:] == list(done.node("q").input)[1:]
    assert len(done.names) == 4


def test_shared_weights_with_different_moves_part() -> None:
    done, _ = rewritten(dense(SHARED), [1], moves=[Move(1, 1, 0, 2.0), Move(2, 1, 2, 1.0)])
    assert done.layer("p") == [[[5, 3], [14, 6]], [10, 20]]
    assert done.layer("q") == [[[1, 5], [4, 11]], [10, 20]]
    assert len(done.names) == 5


@pytest.mark.parametrize("note", ["", "about it"])
@pytest.mark.parametrize("raw", [True, False])
def test_untouched_shared_weights_are_written_as_they_were(note: str, raw: bool) -> None:
    model = dense(SHARED)
    for tensor in model.graph.initializer:
        tensor.doc_string = note
        if not raw:
            tensor.float_data.extend(onnx.numpy_helper.to_array(tensor).reshape(-1).tolist())
            tensor.ClearField("raw_data")
    assert Graph(model).to_model().SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize(
    ("body", "remove", "name", "expected"),
    [
        ("p, q = Split <axis = 1> (c, parts) y = Add (p, q)", [0, 2], "p", [[1, 1]]),
        ("p, q = Split <axis = 1> (c) y = Add (p, q)", [1, 3], "p", []),
        ("y = Slice (c, v1, v3, v1)", [1], "y", [[1], [2], [1]]),
        ("y = Slice (c, v1, v3, v1)", [0, 3], "y", [[0], [2], [1]]),
        ("y = Slice (c, v1, far, v1)", [0], "y", [[0], [3], [1]]),
        ("y = Gather <axis = 1> (c, picks)", [1], "y", [[2, 0, 1]]),
        ("y = Gather <axis = 1> (c, picks)", [0], "y", [[2, 1]]),
        ("y = Reshape (c, shape)", [1, 2], "y", [[0, 2, -1]]),
        ("y = Expand (c, grid)", [1], "y", [[1, 3, 1, 1]]),
    ],
)  # fmt: skip
def test_numbers_that_name_sizes(body: str, remove: list[int], name: str, expected: Any) -> None:
    width = {"Split": 2, "Slice": 2, "Gather": 3, "Reshape": 4, "Expand": 4}[
        body.split("= ")[1].split(" ", maxsplit=1)[0]
    ]
    if "far" in body:
        width = 3
    tail = body.replace("y =", "m =") + (" y = Conv (m, k2)" if "Reshape" not in body else " y = Identity (m)")
    if "Reshape" in body:
        tail = body.replace("y =", "m =") + " t = Reshape (m, back) y = Conv (t, k2)"
    model = net(
        f"c = Conv (x, k1) {tail}", "float[N,1,3,2] x", "float[N,1,a,b] y",
        k1=taps([[1], [2], [3], [4]]), k2=taps([[1] * width]), parts=ints(2, 2), v1=ints(1), v3=ints(3),
        far=ints(2**40), picks=ints(3, 0, 2), shape=ints(0, 4, -1), grid=ints(1, 4, 1, 1), back=ints(0, 0, 3, 2),
    )  # fmt: skip
    done, _ = rewritten(model, remove, tensor="c")
    assert done.layer("m" if name == "y" else name) == expected


def test_an_even_split_stays_implicit_and_an_uneven_one_is_written() -> None:
    model = net(
        "c = Conv (x, k1) p, q = Split <axis = 1> (c) a = Conv (p, k2) b = Conv (q, k2) y = Add (a, b)",
        "float[N,1,H,W] x", "float[N,1,H,W] y", k1=taps([[1], [2], [3], [4]]), k2=taps([[1, 1]]),
    )  # fmt: skip
    even, _ = rewritten(model, [0, 3], tensor="c")
    uneven, _ = rewritten(model, [3], tensor="c")
    assert (even.layer("p"), uneven.layer("p")) == ([], [[2, 1]])
    assert (uneven.layer("a"), uneven.layer("b")) == ([[[1, 1]]], [[[1]]])


def test_stated_shapes_follow_and_others_stay() -> None:
    model = dense()
    for name, size in (("h", 3), ("r", 3)):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]))
    done, _ = rewritten(model, [1])
    sizes = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in done.model.graph.value_info}
    assert sizes == {"h": 2, "r": 2}
    assert done.model.graph.output[0] == model.graph.output[0]


@pytest.mark.parametrize(("groups", "dead", "left"), [(4, [1], 3), (4, [0, 2, 3], 1), (2, [0, 1], 1)])
def test_the_number_of_groups_follows(groups: int, dead: list[int], left: int) -> None:
    model = net(
        f"c = Conv (x, k1) d = Conv <group = {groups}> (c, k2) y = Conv (d, k3)",
        "float[N,1,H,W] x", "float[N,1,H,W] y",
        k1=taps([[1]] * 4), k2=taps([[1] * (4 // groups)] * 4), k3=taps([[1] * 4]),
    )  # fmt: skip
    done, applied = rewritten(model, dead, tensor="c")
    assert done.attributes("d")["group"] == left
    assert applied.removed == {"c": dead, "d": dead}


@pytest.mark.parametrize(
    ("remove", "spared"), [([0, 1, 2], {1, 2}), ([1, 2], {1, 2}), ([0], {0}), ([], set())]
)  # fmt: skip
def test_the_last_index_of_an_axis_is_spared(remove: list[int], spared: set[int]) -> None:
    groups = ChannelGroups(Graph(dense()))
    components = groups.of(("h", 1))
    wish = np.zeros(groups.count, dtype=bool)
    wish[components[remove]] = True
    before = wish.copy()
    result = spare_last(groups, wish)
    assert {i for i in range(3) if result[components[i]]} == spared
    assert (wish == before).all(), "the argument was changed"


def test_every_axis_keeps_an_index() -> None:
    """Both parts of a Split, and a branch that reads one part only."""
    model = net(
        "c = Conv (x, k1) p, q = Split <axis = 1> (c) a = Conv (p, k2) b = Conv (q, k2) y = Add (a, b)",
        "float[N,1,H,W] x", "float[N,1,H,W] y", k1=taps([[1], [2], [3], [4]]), k2=taps([[1, 1]]),
    )  # fmt: skip
    groups = ChannelGroups(Graph(model))
    wish = np.zeros(groups.count, dtype=bool)
    wish[groups.of(("c", 1))] = True
    result = spare_last(groups, wish)
    assert result[groups.of(("c", 1))].tolist() == [False, True, False, True]


@pytest.mark.parametrize(("rows", "expected"), [(None, [10 + 1, 20 + 2]), ([1], [20 + 2])])
def test_shifting_a_bias(rows: list[int] | None, expected: list[float]) -> None:
    graph = Graph(dense())
    node = graph.nodes[-1]
    layer = linear_layer(graph.view(node))
    assert layer is not None
    rounding = shift_bias(graph, layer, np.array([1.0, 2.0]), None if rows is None else ints(*rows))
    assert (rounding, node.inputs[2].values.tolist()) == (0.0, expected)
