import numpy as np
import pytest

from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.surgeon.reach import reach
from onnxprune.surgeon.targets import parameters, working_model
from tests.helpers import parse
from tests.surgeon.nets import mlp, samples

RNG = np.random.default_rng(0)
W = {f"w{i}": RNG.normal(size=(4, 4)).astype(np.float32) for i in (1, 2)}


def test_everything_is_reached_where_everything_has_a_derivative() -> None:
    graph = Graph(working_model(mlp(), samples((6,))))
    wished = parameters(graph, ())
    found, derivatives = reach(graph, wished, "CPUExecutionProvider", 1)
    assert found == wished
    assert set(derivatives.weights) == {"w1", "b1", "w2"}


def test_a_layer_in_front_of_a_jump_is_matched_at_its_own_output() -> None:
    body = "h = MatMul(x, w1)  i, j = TopK<axis = -1>(h, k)  y = MatMul(i, w2)"
    model = parse(body, "float[N,4] x", "float[N,4] y", weights={**W, "k": np.array([4], np.int64)})
    graph = Graph(working_model(model, samples((4,))))
    found, derivatives = reach(graph, parameters(graph, ()), "CPUExecutionProvider", 1)
    assert [t.name for t in found.targets] == ["w1"]
    assert list(found.taps) == ["h"]
    assert derivatives.weights == ("w1",)
    assert list(found.refused.values()) == ["what it computes cannot be run sample by sample"]


def test_nothing_to_prune_says_why() -> None:
    model = parse("y = Relu(x)", "float[N,4] x", "float[N,4] y")
    graph = Graph(working_model(model, samples((4,))))
    with pytest.raises(InputError, match="no weights that can be pruned"):
        reach(graph, parameters(graph, ()), "CPUExecutionProvider", 1)
