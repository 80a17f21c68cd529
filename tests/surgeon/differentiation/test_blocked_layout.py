"""Convolutions in blocks of channels give what plain ones give; all sizes here are multiples of a block."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.runtime import Runner
from onnxprune.surgeon.differentiation.blocked_layout import DOMAIN, with_blocked_convolutions
from onnxprune.surgeon.differentiation.channel_blocks import channel_block
from tests.surgeon.differentiation.support import Problem, Tensor, check, close, model, samples

WIDTH = 16
LAYERS = {
    "plain": ("Conv<pads=[1,1,1,1]>", (WIDTH, WIDTH, 3, 3)),
    "one by one": ("Conv", (WIDTH, WIDTH, 1, 1)),
    "stride": ("Conv<strides=[2,2], pads=[1,1,1,1]>", (WIDTH, WIDTH, 3, 3)),
    "dilated, uneven": ("Conv<dilations=[2,1], pads=[2,0,2,1]>", (2 * WIDTH, WIDTH, 3, 2)),
    "depthwise": ("Conv<group=16, pads=[1,1,1,1]>", (WIDTH, 1, 3, 3)),
    "depthwise with stride": ("Conv<group=16, pads=[1,1,1,1], strides=[2,1]>", (WIDTH, 1, 3, 3)),
    "groups": ("Conv<group=2, pads=[1,1,1,1]>", (WIDTH, WIDTH // 2, 3, 3)),
    "transposed": ("ConvTranspose<pads=[1,1,0,1]>", (WIDTH, 2 * WIDTH, 3, 2)),
    "transposed with stride": ("ConvTranspose<strides=[2,2]>", (WIDTH, WIDTH, 2, 2)),
    "transposed depthwise": ("ConvTranspose<group=16>", (WIDTH, 1, 3, 3)),
}
BETWEEN = {
    "nothing": "o = Identity(h)",
    "entry by entry": "r = Relu(h)\n u = Sigmoid(r)\n q = Mul(u, r)\n o = Add(q, h)",
    "condition": "c = Greater(h, half)\n n = Not(c)\n k = Cast<to=1>(n)\n q = Mul(h, k)\n o = Where(c, q, h)",
    "norm": "r = BatchNormalization<epsilon=0.01>(h, g, s, m, v)\n o = Clip(r, low)",
    "moved": "r = Transpose<perm=[0,1,3,2]>(h)\n q = Tanh(r)\n o = Transpose<perm=[0,1,3,2]>(q)",
}


def network(layer: str, between: str) -> tuple[onnx.ModelProto, list[str]]:
    rng = np.random.default_rng(80)
    op, shape = LAYERS[layer]
    outs = shape[1] * (WIDTH if "group" in op else 1) if "Transpose" in op else shape[0]
    weights: dict[str, Tensor] = {"w": rng.normal(size=shape) / 4, "p": rng.normal(size=(WIDTH, outs, 1, 1)) / 4}
    weights |= {name: rng.normal(size=outs) for name in ("g", "s", "m", "b")} | {"v": rng.random(outs) + 0.5}
    used = ["w", "p", "b", *(("g", "s") if between == "norm" else ())]
    body = f"h = {op}(x, w, b)\n {BETWEEN[between]}\n y = Conv(o, p)"
    kept = {name: weights[name] for name in (*used, *(("m", "v") if between == "norm" else ()))}
    found = model(body, f"float[N,{WIDTH},5,4] x", kept, constants="float half = {0.5}, float low = {-0.4}")
    return found, used


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("layer", ["plain", "depthwise"])
def test_derivatives(layer: str, between: str) -> None:
    found, used = network(layer, between)
    check(Problem(found, used, ["y", "o"], samples(found, np.random.default_rng(81)), np.float32))


@pytest.mark.parametrize("layer", LAYERS)
def test_derivatives_of_layers(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As without blocks; the rules themselves are checked elsewhere."""
    found, used = network(layer, "entry by entry")
    feeds = samples(found, np.random.default_rng(82))
    blocked = Problem(found, used, ["y"], feeds, np.float32).derivatives
    monkeypatch.setattr("onnxprune.surgeon.differentiation.execution.channel_block", lambda: None)
    plain = Problem(found, used, ["y"], feeds, np.float32).derivatives
    value = plain.forward(feeds)["y"]
    close(blocked.forward(feeds)["y"], value, 1e-5, "value")
    (loss, gradient), (wanted, truth) = (
        known.squared_loss(feeds, None, {"y": value + 1}, {"y": 1.0}) for known in (blocked, plain)
    )
    assert loss == pytest.approx(wanted, rel=1e-5)
    for name, entries in truth.items():
        close(gradient[name], entries, 1e-5, name)


def test_convolutions_are_found() -> None:
    """Both convolutions and all between them: one reordering in front, one behind."""
    block = channel_block()
    if block is None:
        pytest.skip("this machine has no convolutions in blocks")
    found, used = network("plain", "entry by entry")
    as_inputs(found, used)
    result = with_blocked_convolutions(found, block)
    counts = [node.op_type for node in result.graph.node if node.domain == DOMAIN]
    assert sorted(counts) == ["Conv", "Conv", "ReorderInput", "ReorderOutput"]
    rng = np.random.default_rng(83)
    feeds = {
        value.name: rng.normal(size=[d.dim_value or 3 for d in value.type.tensor_type.shape.dim]).astype(np.float32)
        for value in found.graph.input
    }
    close(Runner(result, threads=1).run(feeds)[0], Runner(found, threads=1).run(feeds)[0], 1e-5, "value")


def test_other_models_stay_as_they_are() -> None:
    found = model("h = Conv(x, w)\n y = Relu(h)", "float[N,3,4,4] x, float[5,3,2,2] w")
    assert with_blocked_convolutions(found, 8) is found


def as_inputs(found: onnx.ModelProto, names: list[str]) -> None:
    """Some initializers become inputs; attributes that the rewrite reads are written out."""
    for tensor in list(found.graph.initializer):
        if tensor.name in names:
            found.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            found.graph.initializer.remove(tensor)
    for node in found.graph.node:
        if node.op_type == "Conv":
            own = {a.name for a in node.attribute}
            kernel = 3 if node.input[1] == "w" else 1
            every = {"kernel_shape": [kernel] * 2, "strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "group": 1}
            node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in every.items() if k not in own)
    found.opset_import[0].version = 20
