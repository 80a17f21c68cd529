"""Models of every kind survive: same outputs, same surroundings, and a second run changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from tests.helpers import (
    CONV,
    DEAD,
    DENSE,
    HIDDEN,
    assert_equal_models,
    conv,
    dense,
    initializer,
    parse,
    session,
    untouchable,
    weights,
)

GONE = len(DEAD)
SPLIT = """
    h = Gemm <transB = 1> (x, w1, b1)
    r = Relu (h)
"""


def optimize(model: ModelProto | bytes, **options: Any) -> onnxprune.Result[Any]:
    """With the goal that measures nothing."""
    return onnxprune.optimize(model, **{"goal": "size", **options})


def function() -> ModelProto:
    """The activation is a local function."""
    return parse(
        "h = Gemm <transB = 1> (x, w1, b1) r = local.Act (h) y = Gemm <transB = 1> (r, w2, b2)",
        weights=weights(),
        imports=', "local": 1',
        functions='<domain: "local", opset_import: ["": 17]> Act (a) => (b) { b = Relu (a) }',
    )


def function_elsewhere() -> ModelProto:
    """A local function, with an attribute, after the layers."""
    return parse(
        DENSE.replace("y =", "z =") + "y = local.Scale <factor = 2.0> (z)",
        weights=weights(),
        imports=', "local": 1',
        functions="""<domain: "local", opset_import: ["": 17]>
            Scale <factor> (a) => (b) { c = Constant <value_float: float = @factor> () b = Mul (a, c) }""",
    )


def branch(captured: str) -> ModelProto:
    """An If whose bodies read the hidden layer, or only a weight, of the graph around them."""
    return parse(
        f"""{DENSE.replace("y =", "z =")}
        y = If (flag) <
            then_branch = yes () => (float[N,M] p) {{ p = Mul ({captured}, {captured}) }},
            else_branch = no () => (float[N,M] q) {{ q = Neg ({captured}) }}
        >
        """,
        "float[N,4] x, bool flag",
        "float[N,3] z, float[N,M] y",
        weights(),
    )


def loop() -> ModelProto:
    """A Loop whose body multiplies by weights of the graph around it, and reads the hidden layer."""
    return parse(
        f"""{SPLIT}
        start = Gemm <transB = 1> (r, w2, b2)
        y = Loop (count, go, start) <
            body = step (int64 i, bool more, float[N,3] v) => (bool again, float[N,3] u) {{
                again = Identity (more)
                t = Gemm <transB = 1> (r, w2, b2)
                u = Add (v, t)
            }}
        >
        """,
        weights={**weights(), "count": np.array(3), "go": np.array(True)},
    )


def sparse() -> ModelProto:
    """The last bias is stored sparse."""
    model = parse(DENSE, weights={k: v for k, v in weights().items() if k != "b2"})
    values = numpy_helper.from_array(np.array([1.5, -2.0], np.float32), "b2")
    indices = numpy_helper.from_array(np.array([0, 2]), "b2_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    return model


def sparse_weights() -> ModelProto:
    """The weights of a layer with dead units are stored sparse."""
    arrays = weights()
    flat = arrays.pop("w1").reshape(-1)
    model = parse(DENSE, weights=arrays)
    where = np.flatnonzero(flat)
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(flat[where], "w1"), numpy_helper.from_array(where, ""), [HIDDEN, 4]
        )
    )
    return model


def quantized() -> ModelProto:
    """Weights in int8 behind DequantizeLinear, activations through a Q/DQ pair."""
    arrays = weights()
    for name in ("w1", "w2"):
        arrays[name + "_q"] = np.rint(arrays.pop(name) * 20).astype(np.int8)
    arrays["s"], arrays["zero"] = np.array(0.05, np.float32), np.array(0, np.int8)
    return parse(
        """
        w1 = DequantizeLinear (w1_q, s, zero)
        w2 = DequantizeLinear (w2_q, s, zero)
        xq = QuantizeLinear (x, s, zero)
        xd = DequantizeLinear (xq, s, zero)
        h = Gemm <transB = 1> (xd, w1, b1)
        r = Relu (h)
        rq = QuantizeLinear (r, s, zero)
        rd = DequantizeLinear (rq, s, zero)
        y = Gemm <transB = 1> (rd, w2, b2)
        """,
        weights=arrays,
    )


def integer_convolution() -> ModelProto:
    """QLinearConv: integers all the way."""
    rng = np.random.default_rng(3)
    return parse(
        """
        q = QuantizeLinear (x, s, z)
        c = QLinearConv <pads = [1, 1, 1, 1]> (q, s, z, w, s, zw, s, z)
        y = DequantizeLinear (c, s, z)
        """,
        "float[N,2,5,5] x",
        "float[N,3,5,5] y",
        {
            "w": rng.integers(-9, 9, (3, 2, 3, 3)).astype(np.int8),
            "s": np.array(0.05, np.float32),
            "z": np.array(128, np.uint8),
            "zw": np.array(0, np.int8),
        },
    )


def typed(name: str, dtype: Any) -> ModelProto:
    return parse(DENSE, f"{name}[N,4] x", f"{name}[N,3] y", weights(dtype=dtype))


def no_shapes() -> ModelProto:
    """Neither rank nor size of the input is stated."""
    model = dense()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def batch_normalization(opset: int) -> ModelProto:
    arrays = weights(kernel=(3, 3))
    del arrays["b1"]
    gain = np.linspace(0.5, 2, HIDDEN).astype(np.float32)
    gain[list(DEAD)] = 0
    shift = np.where(gain > 0, 0.5, -1).astype(np.float32)
    arrays |= {"g": gain, "s": shift, "m": gain - 1, "v": gain + 1}
    return parse(
        """
        c = Conv <pads = [1, 1, 1, 1]> (x, w1)
        h = BatchNormalization (c, g, s, m, v)
        r = Relu (h)
        y = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
        """,
        "float[N,4,H,W] x",
        "float[N,3,H,W] y",
        arrays,
        opset=opset,
    )


def dropout(opset: int) -> ModelProto:
    extra = "" if opset < 12 else ", ratio"
    arrays = weights() if opset < 12 else {**weights(), "ratio": np.array(0.5, np.float32)}
    return parse(
        DENSE.replace("(r, w2", "(d, w2").replace("y =", f"d, mask = Dropout (r{extra})\n y ="),
        weights=arrays,
        opset=opset,
    )


def clip(opset: int) -> ModelProto:
    node = "r = Clip <min = 0.0, max = 6.0> (h)" if opset < 11 else "r = Clip (h, low, high)"
    ends = {} if opset < 11 else {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    return parse(DENSE.replace("r = Relu (h)", node), weights={**weights(), **ends}, opset=opset)


def unreachable() -> ModelProto:
    return parse(
        DENSE + "n = Gemm <transB = 1> (r, w3) m = Relu (n)",
        weights={**weights(), "w3": np.ones((5, HIDDEN), np.float32)},
    )


def named(*names: str) -> ModelProto:
    model = dense()
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    return model


def same_names_in_chain() -> ModelProto:
    """Four layers called alike."""
    arrays = weights()
    deep = parse(
        """
        h = Gemm <transB = 1> (x, w1, b1)
        r = Relu (h)
        k = Gemm <transB = 1> (r, w2, b2)
        s = Relu (k)
        l = Gemm (s, w2, b1)
        t = Relu (l)
        y = Gemm <transB = 1> (t, w2, b2)
        """,
        weights=arrays,
    )
    for node in deep.graph.node:
        node.name = "layer"
    return deep


def initializers_as_inputs() -> ModelProto:
    model = dense(opset=8, ir=3)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return model


def quantization_annotation() -> ModelProto:
    model = dense()
    note = model.graph.quantization_annotation.add(tensor_name="r")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b2")
    return model


def changed(edit: Callable[[onnx.GraphProto], object]) -> ModelProto:
    """The dense model after an edit."""
    model = dense()
    edit(model.graph)
    return model


def standard_domain() -> ModelProto:
    model = dense()
    for node in model.graph.node:
        node.domain = "ai.onnx"
    return model


class Kind(NamedTuple):
    """How to build a model, and how many units of it must go (None: any number)."""

    build: Callable[[], ModelProto]
    removed: int | None
    tolerance: float = 1e-5
    shapes: Mapping[str, tuple[int, ...]] = {}


KINDS = {
    "dense": Kind(dense, GONE),
    "convolution, any size": Kind(conv, GONE),
    "local function as activation": Kind(function, None),
    "local function behind": Kind(function_elsewhere, GONE),
    "If reads the hidden layer": Kind(lambda: branch("r"), 0),
    "If reads a layer before": Kind(lambda: branch("h"), 0),
    "If reads weights": Kind(lambda: branch("w1"), GONE),
    "If reads the output layer": Kind(lambda: branch("z"), GONE),
    "Loop reads layer and weights": Kind(loop, 0),
    "sparse bias": Kind(sparse, None),
    "sparse weights": Kind(sparse_weights, None),
    "quantized, QDQ": Kind(quantized, 0),
    "quantized, QLinearConv": Kind(integer_convolution, 0),
    "float16": Kind(lambda: typed("float16", np.float16), GONE, 1e-2),
    "float64": Kind(lambda: typed("double", np.float64), GONE, 1e-12),
    "bfloat16": Kind(lambda: typed("bfloat16", ml_dtypes.bfloat16), None, 5e-2),
    "no shapes at all": Kind(no_shapes, GONE, shapes={"x": (2, 4)}),
    **{f"opset {n}": Kind(partial(dense, opset=n), GONE) for n in (7, 9, 13, 17, 21, 23, 25)},
    **{f"BatchNormalization {n}": Kind(partial(batch_normalization, n), GONE) for n in (7, 9, 13, 14, 17, 21, 23)},
    **{f"Dropout {n}": Kind(partial(dropout, n), GONE) for n in (7, 10, 12, 13, 22)},
    **{f"Clip {n}": Kind(partial(clip, n), GONE) for n in (7, 10, 11, 13, 21)},
    "unreachable nodes": Kind(unreachable, GONE),
    "unnamed nodes": Kind(lambda: named("", "", ""), GONE),
    "name that looks like our label for another": Kind(lambda: named("", "", "Gemm(h)"), GONE),
    "nodes of one name": Kind(lambda: named("same", "same", "same"), GONE),
    "four layers of one name": Kind(same_names_in_chain, None),
    "unused initializer": Kind(lambda: parse(DENSE, weights={**weights(), "spare": np.zeros(9)}), GONE),
    "omitted optional input": Kind(
        lambda: parse(
            DENSE + 'z = Clip (y, "", high)',
            outputs="float[N,3] z",
            weights={**weights(), "high": np.array(2, np.float32)},
        ),
        GONE,
    ),
    "hidden layer is an output": Kind(lambda: parse(DENSE, outputs="float[N,3] y, float[N,8] r", weights=weights()), 0),
    "output layer read again": Kind(
        lambda: parse(DENSE + "z = Relu (y)", outputs="float[N,3] y, float[N,3] z", weights=weights()), GONE
    ),
    "input is an output": Kind(lambda: parse(DENSE, outputs="float[N,3] y, float[N,4] x", weights=weights()), GONE),
    "weight is an output": Kind(lambda: parse(DENSE, outputs="float[N,3] y, float[3,8] w2", weights=weights()), None),
    "initializers are inputs": Kind(initializers_as_inputs, GONE),
    "shared weights": Kind(
        lambda: parse(
            """
            h = Gemm <transB = 1> (x, w1, b1)  r = Relu (h)
            k = Gemm <transB = 1> (x2, w1, b1)  s = Relu (k)
            p = Gemm <transB = 1> (r, w2, b2)  q = Gemm <transB = 1> (s, w2, b2)  y = Sub (p, q)
            """,
            "float[N,4] x, float[N,4] x2",
            weights=weights(),
        ),
        None,
    ),
    "weights shared with a node that keeps them": Kind(
        lambda: parse(DENSE + "z = Relu (w1)", outputs="float[N,3] y, float[8,4] z", weights=weights()), None
    ),
    "scalar input": Kind(
        lambda: parse(DENSE + "z = Mul (y, k)", "float[N,4] x, float k", "float[N,3] z", weights()), GONE
    ),
    "text attribute": Kind(
        lambda: parse(
            CONV.replace("Conv <pads = [1, 1, 1, 1]>", 'Conv <auto_pad = "SAME_UPPER">'),
            "float[N,4,H,W] x",
            "float[N,3,H,W] y",
            weights(kernel=(3, 3)),
        ),
        GONE,
    ),
    "integer side input": Kind(
        lambda: parse(DENSE + "z = Gather <axis = 1> (y, i)", "float[N,4] x, int64[2] i", "float[N,2] z", weights()),
        GONE,
    ),
    "no weights": Kind(lambda: parse("y = Relu (x)", outputs="float[N,4] y"), 0),
    "no input": Kind(lambda: parse("y = Relu (b2)", "", "float[3] y", weights()), 0),
    "no nodes": Kind(lambda: parse("", outputs="float[N,4] x"), 0),
    "quantization annotation": Kind(quantization_annotation, GONE),
    "output of unstated shape": Kind(
        lambda: changed(lambda graph: graph.output[0].type.tensor_type.ClearField("shape")), GONE
    ),
    "output of unstated type": Kind(lambda: changed(lambda graph: graph.output[0].ClearField("type")), GONE),
    "graph without a name": Kind(lambda: changed(lambda graph: graph.ClearField("name")), GONE),
    "weight stored twice": Kind(lambda: changed(lambda graph: graph.initializer.append(graph.initializer[0])), GONE),
    "IR 3, weights no inputs": Kind(lambda: dense(ir=3), GONE),
    "wrong note on a shape": Kind(
        lambda: changed(
            lambda graph: graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [9, 7]))
        ),
        GONE,
    ),
    "nodes in wrong order": Kind(lambda: changed(lambda graph: graph.node.reverse()), GONE),
    "explicit standard domain": Kind(standard_domain, None),
    "random output": Kind(
        lambda: parse(DENSE + "n = RandomUniformLike (y) z = Shape (n)", outputs="int64[2] z", weights=weights()),
        None,
    ),
    "sequence behind": Kind(
        lambda: parse(
            DENSE + "s = SplitToSequence <axis = 1> (y) z = ConcatFromSequence <axis = 1> (s)",
            outputs="float[N,3] z",
            weights=weights(),
        ),
        GONE,
    ),
    "sequence in between": Kind(
        lambda: parse(
            f"""{SPLIT} s = SplitToSequence <axis = 1> (r) t = ConcatFromSequence <axis = 1> (s)
            y = Gemm <transB = 1> (t, w2, b2)""",
            weights=weights(),
        ),
        0,
    ),
    "Scan over units": Kind(
        lambda: parse(
            f"""{DENSE} f, g = Scan <num_scan_inputs = 1, body = step (float[8] s, float[8] e)
            => (float[8] t, float[8] u) {{ t = Add (s, e) u = Identity (t) }}> (b1, r)""",
            outputs="float[N,3] y, float[8] f, float[N,8] g",
            weights=weights(),
        ),
        0,
    ),
    "layers inside a branch": Kind(
        lambda: parse(
            f"""z = If (flag) <
                then_branch = yes () => (float[N,3] y) {{ {DENSE} }},
                else_branch = no () => (float[N,3] q) {{ q = Gemm <transB = 1> (x, w3) }}
            >""",
            "float[N,4] x, bool flag",
            "float[N,3] z",
            {**weights(), "w3": np.ones((3, 4), np.float32)},
        ),
        0,
    ),
    "branch that uses the names we would choose": Kind(
        lambda: parse(
            f"""{DENSE.replace("y =", "z =")}
            y = If (flag) <
                then_branch = yes () => (float[N,M] p) {{ w1_0 = Neg (w1) p = Neg (w1_0) }},
                else_branch = no () => (float[N,M] q) {{ h_bias = Neg (w1) q = Abs (h_bias) }}
            >""",
            "float[N,4] x, bool flag",
            "float[N,3] z, float[N,M] y",
            weights(),
        ),
        GONE,
    ),
    "empty weight": Kind(
        lambda: parse(
            CONV.replace("y =", "z =") + "y = Resize (z, roi, scales)",
            "float[N,4,H,W] x",
            "float[N,3,A,B] y",
            {
                **weights(kernel=(3, 3)),
                "roi": np.zeros(0, np.float32),
                "scales": np.array([1, 1, 2, 2], np.float32),
            },
        ),
        GONE,
    ),
    "output that is not a number": Kind(
        lambda: parse(DENSE + "z = Log (y)", outputs="float[N,3] z", weights=weights()), GONE
    ),
    "infinite weights": Kind(
        lambda: parse(DENSE, weights={**weights(), "b2": np.array([1, np.inf, -np.inf], np.float32)}), None
    ),
    "all units dead": Kind(lambda: parse(DENSE, weights=weights(dead=tuple(range(HIDDEN)))), HIDDEN + 3),
    "a single dead unit": Kind(lambda: parse(DENSE, weights=weights(hidden=1, dead=(0,))), 1 + 3),
}


@pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in KINDS.items()])
def test_kind_of_model(kind: Kind) -> None:
    model = kind.build()
    try:
        session(model)
    except Exception as error:
        pytest.skip(f"ONNX Runtime does not run it: {error}")
    before = model.SerializeToString(deterministic=True)
    result = optimize(model, shapes=kind.shapes)
    assert model.SerializeToString(deterministic=True) == before
    assert not [entry for entry in result.report["passes"] if entry["rolled_back"]]
    assert_equal_models(model, result.model, tolerance=kind.tolerance)
    if kind.removed is not None:
        assert result.report["units"]["removed"] == kind.removed
    assert result.modified == (result.model.SerializeToString(deterministic=True) != before)
    again = optimize(result.model, shapes=kind.shapes)
    assert not again.modified
    assert not [entry for entry in again.report["passes"] if entry["rolled_back"]]
    assert again.model.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


def dressed() -> ModelProto:
    """A model with everything around the graph that a file can hold."""
    model = function_elsewhere()
    model.doc_string = "about the model"
    model.domain = "org.example"
    model.model_version = 42
    model.producer_name, model.producer_version = "hand", "1.2"
    helper.set_model_props(model, {"names": "{0: 'cat'}", "author": "somebody"})
    graph = model.graph
    graph.name = "a name with spaces"
    graph.doc_string = "about the graph"
    graph.metadata_props.add(key="graph key", value="graph value")
    for number, node in enumerate(graph.node):
        node.name = f"/block/{number}"
        node.doc_string = f"line {number}"
        node.metadata_props.add(key="pkg", value=f"torch.{number}")
    graph.input[0].doc_string = "an image"
    graph.input[0].type.denotation = "IMAGE"
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph.output[0].doc_string = "scores"
    for name, size in (("h", HIDDEN), ("r", HIDDEN), ("z", 3)):
        note = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size], f"{name} is a tensor")
        note.type.denotation = "TENSOR"
        note.type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
        graph.value_info.append(note)
    annotation = graph.quantization_annotation.add(tensor_name="r")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b2")
    graph.initializer[0].doc_string = "first weights"
    graph.initializer[3].metadata_props.add(key="origin", value="training")
    return model


@pytest.fixture(scope="module")
def undressed() -> tuple[ModelProto, ModelProto]:
    """The dressed model before and after a run that removes units."""
    model = dressed()
    onnx.checker.check_model(model)
    result = optimize(model, domain="-3:3")
    assert result.report["units"]["removed"] == GONE
    return model, result.model


FIELDS = ("ir_version", "doc_string", "domain", "model_version", "producer_name", "producer_version")


@pytest.mark.parametrize("field", FIELDS)
def test_model_field_is_kept(field: str, undressed: tuple[ModelProto, ModelProto]) -> None:
    before, after = undressed
    assert getattr(after, field) == getattr(before, field)


@pytest.mark.parametrize("field", ["opset_import", "functions"])
def test_model_list_is_kept(field: str, undressed: tuple[ModelProto, ModelProto]) -> None:
    before, after = undressed
    assert list(getattr(after, field)) == list(getattr(before, field))


@pytest.mark.parametrize(
    "field", ["name", "doc_string", "metadata_props", "input", "output", "quantization_annotation"]
)
def test_graph_field_is_kept(field: str, undressed: tuple[ModelProto, ModelProto]) -> None:
    before, after = undressed
    assert getattr(after.graph, field) == getattr(before.graph, field)


def test_metadata_is_kept_and_tells_the_domain(undressed: tuple[ModelProto, ModelProto]) -> None:
    before, after = ({p.key: p.value for p in model.metadata_props} for model in undressed)
    added = {key: value for key, value in after.items() if key not in before}
    assert {key: after[key] for key in before} == before
    assert added == {"onnxprune.align": "1", "onnxprune.domain.x": "-3:3"}


def test_nodes_are_kept_as_they_are(undressed: tuple[ModelProto, ModelProto]) -> None:
    before, after = undressed
    assert list(after.graph.node) == list(before.graph.node)


def test_notes_about_tensors_follow_the_sizes(undressed: tuple[ModelProto, ModelProto]) -> None:
    before, after = undressed
    expected = {}
    for note in before.graph.value_info:
        expected[note.name] = changed = onnx.ValueInfoProto()
        changed.CopyFrom(note)
        if note.name in ("h", "r"):
            changed.type.tensor_type.shape.dim[1].dim_value = HIDDEN - GONE
    assert {note.name: note for note in after.graph.value_info} == expected


def test_notes_on_weights_are_kept(undressed: tuple[ModelProto, ModelProto]) -> None:
    before, after = undressed
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (new.name, new.data_type, new.doc_string) == (old.name, old.data_type, old.doc_string)
        assert list(new.metadata_props) == list(old.metadata_props)


def test_weights_that_stay_are_bit_equal(undressed: tuple[ModelProto, ModelProto]) -> None:
    before, after = undressed
    kept = [unit for unit in range(HIDDEN) if unit not in DEAD]
    for name, rows in (("w1", np.s_[kept]), ("b1", np.s_[kept]), ("w2", np.s_[:, kept]), ("b2", np.s_[:])):
        np.testing.assert_array_equal(initializer(after, name), initializer(before, name)[rows])


def test_model_with_surroundings_but_nothing_to_remove_is_handed_back() -> None:
    model = untouchable()
    model.doc_string = "about the model"
    helper.set_model_props(model, {"names": "cat"})
    result = optimize(model)
    assert not result.modified
    assert result.model == model
    assert "onnxprune.align" not in {p.key for p in result.model.metadata_props}


def test_unknown_fields_survive() -> None:
    """Fields of a newer ONNX than the one installed here."""
    model = untouchable()
    data = model.SerializeToString() + b"\xfa\x7f\x03new"  # field 2047, length-delimited
    result = optimize(data)
    assert result.model == result.source.model.SerializeToString() == data


def test_second_domain_is_added_to_the_first() -> None:
    first = optimize(dense(), domain="x=-3:3").model
    first.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros_like(initializer(first, "w1")), "w1"))
    second = optimize(first, domain="x=-1:1").model
    entries = {p.key: p.value for p in second.metadata_props}
    assert entries["onnxprune.domain.x"] == "-3:3 and -1:1"


@pytest.mark.parametrize(
    ("goal", "align"), [("size", "auto"), ("size", 1), ("size", 4), ("size", 8), ("latency", "auto"), ("latency", 8)]
)
def test_second_run_changes_nothing(goal: str, align: str | int) -> None:
    """Three quarters of the units are dead, so that no noise can make the smaller model the slower one."""
    arrays = weights(hidden=32, dead=tuple(range(5, 28)), kernel=(3, 3))
    model = parse(CONV, "float[N,4,H,W] x", "float[N,3,H,W] y", arrays)
    settings: dict[str, Any] = {"goal": goal, "align": align, "shapes": {"x": (1, 4, 24, 24)}, "threads": 1}
    first = onnxprune.optimize(model, **settings)
    assert first.modified
    second = onnxprune.optimize(first.model, **settings)
    assert not second.modified
    assert second.model.SerializeToString() == first.model.SerializeToString()


@pytest.mark.parametrize("domain", [None, "0:1", "x=-0.25:0.125"])
def test_second_run_on_the_same_domain_changes_nothing(domain: str | None) -> None:
    first = optimize(conv(), domain=domain)
    second = optimize(first.model, domain=domain)
    assert not second.modified
    assert second.model == first.model
