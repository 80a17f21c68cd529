"""Networks with units planted that can go: they are removed, the certificate is accepted, and its bounds hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnxprune import optimize
from onnxprune.verify.checker import Verdict, check
from tests.helpers import parse, run

Floats = NDArray[np.float64]
FEATURES, OUTPUTS, SIZE = 3, 2, 5
KINDS = ("free", "dead", "inactive", "active", "constant", "multiple")
DENSE = "{a} = Gemm <transB = 1> ({x}, w{n}, b{n}) {r} = Relu ({a})"
CONV = "{a} = Conv <pads = [{pad}, {pad}, {pad}, {pad}]> ({x}, w{n}, b{n}) {r} = Relu ({a})"
HEAD = "y = Gemm <transB = 1> ({x}, w, b)"
POOLED = "p = GlobalAveragePool ({x}) f = Flatten (p) y = Gemm <transB = 1> (f, w, b)"

layers = st.lists(
    st.lists(st.sampled_from(KINDS), min_size=2, max_size=6).map(lambda kinds: ["free", *kinds]), max_size=2
)
seeds = st.integers(0, 2**16)


def planted(
    kinds: Sequence[str], shape: Sequence[int], high: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Weights and biases of a layer on inputs in [0, high], and with them units of these kinds."""
    weights, biases = rng.normal(size=(len(kinds), *shape)), np.zeros(len(kinds))
    for unit, kind in enumerate(kinds):
        if kind == "multiple":
            weights[unit] = weights[0] * 2.0
        if kind in ("dead", "constant"):
            weights[unit] = 0.0
    reach = np.maximum(weights, 0).reshape(len(kinds), shape[0], -1).sum(axis=2) @ high
    depth = np.maximum(-weights, 0).reshape(len(kinds), shape[0], -1).sum(axis=2) @ high
    for unit, kind in enumerate(kinds):
        share = rng.uniform(1.1, 2.0)
        biases[unit] = {
            "free": rng.uniform(-0.3, 0.3),
            "dead": -0.5,
            "constant": 0.5,
            "inactive": -share * reach[unit] - 0.1,
            "active": share * depth[unit] + 0.1,
            "multiple": 0.0,
        }[kind]
        if kind == "multiple":
            biases[unit] = 2.0 * biases[0]
    return weights, biases


def network(structure: Sequence[Sequence[str]], seed: int, *, images: bool) -> onnx.ModelProto:
    """A network with these kinds of units, layer by layer, for inputs in [0, 1]."""
    rng = np.random.default_rng(seed)
    text, high, x = "", np.ones(FEATURES), "x"
    arrays: dict[str, NDArray[np.float32]] = {}
    for number, kinds in enumerate(structure):
        pad = int(rng.integers(2))
        kernel = (3, 3) if images else ()
        weights, biases = planted(kinds, (len(high), *kernel), high, rng)
        arrays |= {f"w{number}": weights.astype(np.float32), f"b{number}": biases.astype(np.float32)}
        text += (CONV if images else DENSE).format(a=f"a{number}", x=x, n=number, r=f"r{number}", pad=pad)
        mass = np.maximum(weights, 0).reshape(len(kinds), len(high), -1).sum(axis=2)
        high, x = np.maximum(mass @ high + biases, 0.0), f"r{number}"
    arrays |= {"w": rng.normal(size=(OUTPUTS, len(high))).astype(np.float32)}
    arrays |= {"b": rng.normal(size=OUTPUTS).astype(np.float32)}
    text += (POOLED if images else HEAD).format(x=x)
    shape = f"1,{FEATURES},{SIZE},{SIZE}" if images else f"N,{FEATURES}"
    return parse(text, f"float[{shape}] x", f"float[{1 if images else 'N'},{OUTPUTS}] y", arrays)


def verified(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Verdict]:
    """What optimize makes of a model on [0, 1], and what the checker says."""
    result = optimize(model, "0:1", budget=0.0, goal="size", align=1, certificate=True, remember=False)
    assert result.certificate is not None
    return result.model, check(result.certificate.certificate, model, result.model)


def holds(structure: Sequence[Sequence[str]], seed: int, *, images: bool, runs: int = 20) -> None:
    """Units that were planted are gone, and outputs differ by no more than the checker says."""
    model = network(structure, seed, images=images)
    smaller, verdict = verified(model)
    sizes = [
        sum(tensor.dims[0] for tensor in m.graph.initializer if tensor.name in biases(m)) for m in (model, smaller)
    ]
    assert sizes[1] <= sizes[0] - any(kind not in ("free", "active") for kinds in structure for kind in kinds)
    assert verdict.solver == 0
    single = np.inf if verdict.robust is None else verdict.robust.difference["y"]
    real = verdict.deviation["y"] + verdict.rounding["y"]
    assert real <= 1e-4
    rng = np.random.default_rng(seed + 1)
    shape = (1, FEATURES, SIZE, SIZE) if images else (8, FEATURES)
    evaluators = [ReferenceEvaluator(double(m)) for m in (model, smaller)]
    for number in range(runs):
        x = rng.choice([rng.random(shape), rng.integers(0, 2, shape)]).astype(np.float32)
        (one,), (other,) = run(model, {"x": x}), run(smaller, {"x": x})
        assert np.abs(one.astype(np.float64) - other).max() <= single
        if number < 3:
            one, other = (np.asarray(e.run(None, {"x": x.astype(np.float64)}))[0] for e in evaluators)
            assert np.abs(one - other).max() <= real + 1e-12 * (1 + np.abs(one).max())


def double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with constants in double precision: rounding is next to nothing."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for tensor in found.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float64), tensor.name))
    return found


def biases(model: onnx.ModelProto) -> set[str]:
    """Third inputs of layers: they have one entry per unit."""
    return {node.input[2] for node in model.graph.node if node.op_type in ("Gemm", "Conv") and len(node.input) > 2}


EXAMPLE = [["free", "dead", "inactive", "active", "constant", "multiple"], ["free", "inactive", "free", "constant"]]


@pytest.mark.parametrize("images", [False, True], ids=["dense", "images"])
def test_all_kinds_at_once(images: bool) -> None:
    holds(EXAMPLE, 0, images=images)


@pytest.mark.parametrize("images", [False, True], ids=["dense", "images"])
@settings(max_examples=8, deadline=None)
@given(structure=layers, seed=seeds)
def test_networks_at_random(images: bool, structure: list[list[str]], seed: int) -> None:
    holds(structure, seed, images=images)


@pytest.mark.slow
@pytest.mark.parametrize("images", [False, True], ids=["dense", "images"])
@settings(max_examples=400, deadline=None)
@given(structure=layers, seed=seeds)
def test_many_networks_at_random(images: bool, structure: list[list[str]], seed: int) -> None:
    holds(structure, seed, images=images)
