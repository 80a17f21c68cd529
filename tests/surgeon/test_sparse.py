"""Sparse initializers: the same bits out, fewer bytes, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxprune.surgeon.sparse import made_dense, stored_sparse
from tests.helpers import parse, run
from tests.surgeon.small import stored

CPU = "CPUExecutionProvider"
LAYERS = {
    "Conv": ("y = Conv (x, w)", "[N,8,6,6] x", "[N,12,4,4] y", (12, 8, 3, 3)),
    "ConvTranspose": ("y = ConvTranspose (x, w)", "[N,8,6,6] x", "[N,12,8,8] y", (8, 12, 3, 3)),
    "Gemm": ("y = Gemm (x, w)", "[N,24] x", "[N,40] y", (24, 40)),
    "MatMul": ("y = MatMul (x, w)", "[N,24] x", "[N,40] y", (24, 40)),
}


def model(op: str, dtype: Any, *, density: float = 0.05, opset: int = 17) -> onnx.ModelProto:
    body, x, y, shape = LAYERS[op]
    rng = np.random.default_rng(0)
    values = (rng.normal(size=shape) * (rng.random(shape) < density)).astype(dtype)
    kind = {np.float16: "float16", np.float32: "float", np.float64: "double"}[dtype]
    return parse(body, kind + x, kind + y, {"w": values}, opset=opset)


def inputs(of: onnx.ModelProto, dtype: Any) -> dict[str, NDArray[Any]]:
    shape = [d.dim_value or 2 for d in of.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(1).normal(size=shape).astype(dtype)}


@pytest.mark.parametrize("opset", [11, 17, 21])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("op", LAYERS)
def test_every_layer_takes_sparse_weights(op: str, dtype: Any, opset: int) -> None:
    dense = model(op, dtype, opset=opset)
    before, feeds = dense.SerializeToString(), inputs(dense, dtype)
    sparse, names = stored_sparse(dense, feeds, CPU)
    assert names == ("w",)
    assert dense.SerializeToString() == before
    onnx.checker.check_model(sparse)
    assert sparse.ByteSize() < dense.ByteSize()
    np.testing.assert_array_equal(run(sparse, feeds)[0], run(dense, feeds)[0])
    np.testing.assert_array_equal(stored(made_dense(sparse))["w"], stored(dense)["w"])


def test_only_where_the_file_gets_smaller() -> None:
    dense = model("Gemm", np.float32, density=0.5)
    sparse, names = stored_sparse(dense, inputs(dense, np.float32), CPU)
    assert names == ()
    assert sparse is dense


def test_a_tensor_of_zeros_alone() -> None:
    dense = model("Gemm", np.float32, density=0.0)
    feeds = inputs(dense, np.float32)
    sparse, names = stored_sparse(dense, feeds, CPU)
    assert names == ("w",)
    np.testing.assert_array_equal(run(sparse, feeds)[0], run(dense, feeds)[0])


def test_the_default_of_an_input_stays_dense() -> None:
    dense = model("Gemm", np.float32)
    dense.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [24, 40]))
    assert stored_sparse(dense, inputs(dense, np.float32), CPU)[1] == ()


def test_indices_of_either_form_become_dense() -> None:
    values = np.zeros((3, 4), np.float32)
    values[[0, 2], [3, 1]] = 5, 7
    stores = [np.array([3, 9]), np.array([[0, 3], [2, 1]])]
    for places in stores:
        found = parse("y = MatMul (x, w)", "float[N,3] x", "float[N,4] y")
        found.graph.sparse_initializer.append(
            onnx.helper.make_sparse_tensor(
                onnx.numpy_helper.from_array(np.array([5, 7], np.float32), "w"),
                onnx.numpy_helper.from_array(places.astype(np.int64)),
                [3, 4],
            )
        )
        np.testing.assert_array_equal(stored(made_dense(found))["w"], values)
