"""Element types and symbolic shapes: what inference finds, and which notes of the file are believed."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.graph.types import SMALL, infer_types
from onnxprune.operators import TensorType
from tests.helpers import parse

ROW = np.ones(8, np.float32)


def shape(model: onnx.ModelProto, name: str, **shapes: tuple[int, ...]) -> Any:
    return infer_types(model, shapes or None)[name].shape


@pytest.mark.parametrize(
    ("inputs", "body", "expected"),
    [
        ("float[N,4] x", "y = Relu (x)", ("N", 4)),
        ("float[N,4] x", "t = Transpose (x) y = Relu (t)", (4, "N")),
        ("float[N,4,H,W] x", "y = GlobalAveragePool (x)", ("N", 4, 1, 1)),
        ("float[2,4,6,6] x", "y = MaxPool <kernel_shape = [3, 3]> (x)", (2, 4, 4, 4)),
        ("float[N,4] x", "y = MatMul (x, w)", ("N", 8)),
        ("float[N,4] x", "y = Concat <axis = 1> (x, x)", ("N", 8)),
        ("float[N,2,4] x", "y = Flatten (x)", ("N", 8)),
        ("float[N,2,4] x", "y = Reshape (x, flat)", ("N", 8)),
        ("float[2,4] x", "s = Shape (x) y = Reshape (x, s)", (2, 4)),
        ("float x", "y = Relu (x)", ()),
        ("float[] x", "y = Relu (x)", None),
    ],
)
def test_shapes(inputs: str, body: str, expected: tuple[Any, ...] | None) -> None:
    tables = {"w": np.ones((4, 8), np.float32), "flat": np.array([0, 8])}
    model = parse(body, inputs, "float y", {name: v for name, v in tables.items() if name in body})
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert shape(model, "y") == expected


def test_an_unknown_size_is_no_number() -> None:
    first, second = shape(parse("y = Relu (x)", "float[?,4] x", "float[a,b] y"), "y")
    assert not isinstance(first, int)
    assert second == 4


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_, ml_dtypes.bfloat16]
)
def test_element_types_of_initializers(dtype: Any) -> None:
    model = parse("y = Identity (w)", "", "float[3] y", {"w": np.ones(3).astype(dtype)})
    assert infer_types(model)["w"] == TensorType(np.dtype(dtype), (3,))


def test_the_size_of_an_input_can_be_given() -> None:
    model = parse("t = Transpose (x) y = Relu (t)", "float[N,M] x", "float[a,b] y")
    assert shape(model, "y") == ("M", "N")
    assert shape(model, "y", x=(3, 5)) == (5, 3)
    assert shape(model, "x", x=(3, 5)) == (3, 5)
    assert shape(model, "y", other=(3, 5)) == ("M", "N")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def noted(op: str, *sizes: int | str) -> onnx.ModelProto:
    """The file states a shape of t."""
    model = parse(f"t = {op} (x) y = Relu (t)", "float[N,4] x", "float[a,b] y", imports=', "other": 1')
    model.graph.value_info.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, list(sizes)))
    return model


def test_a_stale_note_is_not_believed() -> None:
    assert shape(noted("Relu", 7, 7), "t") == ("N", 4)
    assert shape(noted("Relu", 7, 7), "y") == ("N", 4)


def test_a_note_is_used_where_inference_finds_nothing() -> None:
    assert shape(noted("other.Op", "N", 9), "t") == ("N", 9)


def test_a_note_says_nothing_about_other_input_sizes() -> None:
    types = infer_types(noted("other.Op", 1, 9), {"x": (2, 4)})
    assert types.get("t", TensorType(None, None)).shape is None


def test_the_stated_shape_of_an_output_is_not_believed() -> None:
    model = parse("y = Relu (x)", "float[N,4] x", "float[1,4] y")
    assert shape(model, "y") == ("N", 4)


def test_large_weights_are_not_copied_but_known() -> None:
    large = np.ones((SMALL, 8), np.float32)
    model = parse("h = MatMul (x, w) y = Add (h, b)", f"float[N,{SMALL}] x", "float[a,b] y", {"w": large, "b": ROW})
    assert shape(model, "w") == (SMALL, 8)
    assert shape(model, "h") == ("N", 8)


def test_initializers_that_are_inputs_are_constant() -> None:
    model = parse("y = Reshape (x, s)", "float[N,2,4] x", "float[a,b] y", {"s": np.array([-1, 8])}, opset=9, ir=3)
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, [2]))
    assert shape(model, "y")[1] == 8


def test_a_graph_that_inference_refuses_is_known_by_its_notes() -> None:
    model = parse("h = MatMul (x, w) y = Relu (h)", "float[N,5] x", "float[a,b] y", {"w": np.ones((4, 8), np.float32)})
    types = infer_types(model)
    assert types["x"] == TensorType(np.dtype(np.float32), ("N", 5))
    assert types["w"].shape == (4, 8)


def test_a_local_function_is_followed() -> None:
    model = parse(
        "y = local.Twice (x)", "float[N,4] x", "float[a,b] y", imports=', "local": 1',
        functions='<domain: "local", opset_import: ["": 17]> Twice (a) => (b) { b = Concat <axis = 1> (a, a) }',
    )  # fmt: skip
    assert shape(model, "y") == ("N", 8)


def test_a_sequence_has_no_type_of_a_tensor() -> None:
    model = parse(
        "s = SplitToSequence <axis = 1> (x) y = ConcatFromSequence <axis = 1> (s)", "float[N,4] x", "float[a,b] y"
    )
    assert infer_types(model).get("s", TensorType(None, None)) == TensorType(None, None)
