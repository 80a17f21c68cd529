"""Models as they are exported: constants in nodes, sizes computed, open batches, ends that are not piecewise linear."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import InputError
from onnxprune.regions.reading import prepared, read
from tests.helpers import parse

LINES = {"w": np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], np.float32), "v": np.ones((3, 2), np.float32)}
"""Three lines through 0: 6 cells."""


@pytest.mark.parametrize(
    "body",
    [
        "m = Constant <value = float {2.0}> () d = Div (x, m) g = MatMul (d, w) h = Relu (g) y = MatMul (h, v)",
        "g = MatMul (x, w) z = Constant <value = float {0.0}> () h = Max (z, g) y = MatMul (h, v)",
        "s = Shape (x) k = Reshape (x, s) g = MatMul (k, w) h = Relu (g) y = MatMul (h, v)",
        "g = MatMul (x, w) h = Relu (g) f = MatMul (h, v) y = Softmax (f)",
        "g = MatMul (x, w) h = Relu (g) f = MatMul (h, v) e = Exp (f) y = Add (e, f)",
        "a = Sigmoid (x) g = MatMul (x, w) h = Relu (g) f = MatMul (h, v) y = Add (a, f)",
    ],
    ids=["Constant", "Max of a constant", "Shape", "Softmax", "Exp", "Sigmoid beside"],
)
def test_regions_of_models_as_they_are_exported(body: str) -> None:
    report = onnxprune.count_regions(parse(body, "float[N,2] x", "float[M,2] y", LINES), "-1:1", method="exact")
    assert report["exact"] == 6


def test_only_constants_are_folded() -> None:
    graph = prepared(parse("c = Constant <value = float {1.0}> () d = Neg (c) y = Add (x, d)", outputs="float[N,4] y"))
    assert [node.op for node in graph.nodes] == ["Add"]
    noise = prepared(parse("c = RandomNormal <shape = [1]> () y = Add (x, c)", outputs="float[N,4] y"))
    assert [node.op for node in noise.nodes] == ["RandomNormal", "Add"]


def test_the_model_is_not_changed() -> None:
    model = parse("y = Relu (x)", "float[N,2] x", "float[N,2] y")
    before = model.SerializeToString()
    assert read(model, "-1:1").net.shape("x") == (1, 2)
    assert model.SerializeToString() == before


def test_what_is_not_piecewise_linear_is_named() -> None:
    body = "g = MatMul (x, w) t = Tanh (g) h = Relu (t) y = MatMul (h, v)"
    with pytest.raises(InputError, match=r"Operator Tanh .*Relu .*needs it"):
        read(parse(body, "float[N,2] x", "float[N,2] y", LINES), "-1:1")
    with pytest.raises(InputError, match="not piecewise linear: Tanh"):
        read(parse("y = Tanh (x)", "float[N,2] x", "float[N,2] y"), "-1:1")
    end = parse("h = Relu (x) y = Softmax (h)", "float[N,2] x", "float[N,2] y")
    with pytest.raises(InputError, match="no affine map"):
        onnxprune.count_regions(end, "-1:1", include_output=True)


def test_regions_of_a_classifier_with_softmax_are_those_without() -> None:
    rng = np.random.default_rng(0)
    tables = {"w": rng.normal(size=(2, 5)).astype(np.float32), "v": rng.normal(size=(5, 3)).astype(np.float32)}
    body = "g = MatMul (x, w) h = Relu (g) f = MatMul (h, v)"
    plain = parse(f"{body} y = Identity (f)", "float[N,2] x", "float[N,3] y", tables)
    soft = parse(f"{body} y = Softmax (f)", "float[N,2] x", "float[N,3] y", tables)
    assert onnxprune.count_regions(plain, "-1:1")["exact"] == onnxprune.count_regions(soft, "-1:1")["exact"]
    with pytest.raises(InputError, match="affine"):
        onnxprune.count_regions(soft, "-1:1", definition="affine")


def test_an_open_size_that_is_no_batch_is_refused() -> None:
    model = parse("y = Relu (x)", "float[2,H] x", "float[2,H] y")
    with pytest.raises(InputError, match=r"shape is open|finite box"):
        onnxprune.count_regions(model, "-1:1")
    assert isinstance(model, onnx.ModelProto)
