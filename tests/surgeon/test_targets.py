import numpy as np
import pytest

from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.surgeon.targets import parameters, working_model
from tests.helpers import parse
from tests.surgeon.nets import convolutions, mlp, samples

LAYERS = {
    "gemm": ("y = Gemm(x, w)", "float[N,6] x", "float[N,4] y", (6, 4)),
    "gemm_transposed": ("y = Gemm<transB = 1>(x, w)", "float[N,6] x", "float[N,4] y", (4, 6)),
    "matmul": ("y = MatMul(x, w)", "float[N,5,6] x", "float[N,5,4] y", (6, 4)),
    "conv": ("y = Conv(x, w)", "float[N,6,5,5] x", "float[N,4,3,3] y", (4, 6, 3, 3)),
    "grouped": ("y = Conv<group = 2>(x, w)", "float[N,6,5,5] x", "float[N,4,3,3] y", (4, 3, 3, 3)),
    "transposed": ("y = ConvTranspose(x, w)", "float[N,6,5,5] x", "float[N,4,7,7] y", (6, 4, 3, 3)),
    "grouped_transposed": ("y = ConvTranspose<group = 2>(x, w)", "float[N,6,5,5] x", "float[N,4,7,7] y", (6, 2, 3, 3)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_normal_form_and_back(kind: str) -> None:
    body, inputs, outputs, shape = LAYERS[kind]
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = parse(body, inputs, outputs, weights={"w": values})
    sizes = [int(s) for s in inputs[inputs.index("N,") + 2 : inputs.index("]")].split(",")]
    (target,) = parameters(Graph(working_model(model, samples(tuple(sizes)))), ()).targets
    normal = target.normal_of(values)
    np.testing.assert_array_equal(normal, target.normal.weights.reshape(target.normal.n_out, -1).astype(np.float32))
    np.testing.assert_array_equal(target.stored_of(normal), values)


def test_uses_count_positions() -> None:
    found = parameters(Graph(working_model(convolutions(), samples((3, 6, 6)))), ())
    assert [t.uses for t in found.targets] == [36, 36, 36, 1]
    assert found.total == 8 * 27 + 2 * 8 * 72 + 32
    assert set(found.followers) == {"b0", "b1", "b2"}
    assert found.outputs == ("y",)
    assert found.taps == {"a0": 288, "a1": 288, "f": 8, "y": 4}


def test_what_enters_a_final_softmax_stands_for_the_output() -> None:
    w = np.eye(4, dtype=np.float32)
    model = parse("h = MatMul(x, w)  y = Softmax(h)", "float[N,4] x", "float[N,4] y", weights={"w": w})
    assert parameters(Graph(working_model(model, samples((4,)))), ()).outputs == ("h",)


def test_shared_weights_stay() -> None:
    w = np.eye(4, dtype=np.float32)
    model = parse("h = MatMul(x, w)  y = MatMul(h, w)", "float[N,4] x", "float[N,4] y", weights={"w": w})
    found = parameters(Graph(working_model(model, samples((4,)))), ())
    assert not found.targets
    assert set(found.refused.values()) == {"its weights are shared with another layer"}


def test_a_layer_that_is_asked_to_stay() -> None:
    graph = Graph(working_model(mlp(), samples((6,))))
    name = parameters(graph, ()).targets[0].layer
    found = parameters(graph, (name,))
    assert [t.name for t in found.targets] == ["w2"]
    assert found.refused == {name: "asked to stay"}
    with pytest.raises(InputError, match="no layer with weights: nothing"):
        parameters(graph, ("nothing",))


def test_open_sizes_are_fixed_to_those_of_the_samples() -> None:
    w = np.ones((4, 2), np.float32)
    model = parse("y = MatMul(x, w)", "float[N,L,4] x", "float[N,L,2] y", weights={"w": w})
    found = parameters(Graph(working_model(model, samples((7, 4)))), ())
    assert found.targets[0].uses == 7
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_param == "L"
