"""Networks made from models and layers, and the two ways to run inner loops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune.errors import InputError
from onnxprune.regions import RegionNetwork, compiled, count_exactly, empirical, iter_regions, narrow, probe_regions
from onnxprune.regions.parity import parity_bound
from tests.regions import nets

SOURCE = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N, 2] x) => (float[N, 1] y)
<float[2, 3] w = {1.0, 0.5, -1.0, -0.5, 1.0, 0.25}, float[3] b = {0.1, -0.2, 0.3}, float[3, 1] v = {1.0, -2.0, 0.5}>
{
   g = Gemm(x, w, b)
   h = ACTIVATION(g)
   y = MatMul(h, v)
}
"""


def _model(activation: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(SOURCE.replace("ACTIVATION", activation))


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu"])
def test_affine_maps_are_those_of_the_model(activation: str) -> None:
    model = _model(activation)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    regions = list(iter_regions(model, "-1:1"))
    assert len(regions) == count_exactly(RegionNetwork.of_model(model, "-1:1")).lower > 3
    for region in regions:
        expected = session.run(None, {"x": region.witness[None].astype(np.float32)})[0]
        assert region.outputs is not None
        np.testing.assert_allclose(region.outputs(region.witness), expected[0], atol=1e-5)


def test_signs_of_a_models_outputs_cut_its_domain() -> None:
    model = _model("Relu")
    plain = count_exactly(RegionNetwork.of_model(model, "-1:1")).lower
    assert count_exactly(RegionNetwork.of_model(model, "-1:1", include_output=True)).lower > plain


def test_refusals_say_why() -> None:
    with pytest.raises(InputError, match="piecewise linear"):
        RegionNetwork.of_model(_model("Tanh"), "-1:1")
    with pytest.raises(InputError, match="finite box"):
        RegionNetwork.of_model(_model("Relu"), "-1e30:1e30")
    with pytest.raises(InputError, match="domain"):
        next(iter_regions(_model("Relu")))


def test_stable_units_are_folded_into_what_reads_them() -> None:
    rng = np.random.default_rng(0)
    (weights, bias), *rest = nets.random_layers(rng, 3, [6, 5, 4])
    bias = bias + np.array([9.0, -9, 0, 0, 9, 0])
    layers = [(weights, bias), *rest]
    network = RegionNetwork.of_layers(layers, -np.ones(3), np.ones(3))
    assert network.unstable < network.units == 15
    first = network.layers[0]
    assert {0, 4} <= set(first.active.tolist())
    assert 1 in first.inactive
    points = rng.uniform(-1, 1, size=(50, 3))
    found, h = network.preactivations(points), points
    expected = []
    for (w, b), layer in zip(layers, network.layers, strict=True):
        g = h @ np.asarray(w).T + b
        expected.append(g[:, layer.unstable])
        h = np.maximum(g, 0)
    np.testing.assert_allclose(found, np.hstack(expected), atol=1e-12)
    gates, _ = network.affine_maps(network.pattern_at(points[0]))
    np.testing.assert_allclose(gates(points[0]), found[0], atol=1e-12)


def test_one_region_where_nothing_switches() -> None:
    network = RegionNetwork.of_layers([(np.eye(2), np.full(2, 5.0))], [-1, -1], [1, 1])
    assert (network.unstable, count_exactly(network).lower, empirical(network)) == (0, 1, 1)
    assert [region.pattern for region in iter_regions(network)] == [()]
    assert list(narrow(network))[-1].exact
    assert probe_regions(network, probes=3).mean == 1


def test_compiled_and_plain_loops_agree(tmp_path: Path) -> None:
    code = (
        "import numpy as np\n"
        "from tests.regions import nets\n"
        "from onnxprune.regions import count_exactly\n"
        "from onnxprune.regions.compiled import COMPILED\n"
        "from onnxprune.regions.parity import parity_bound\n"
        "assert not COMPILED\n"
        "for seed in range(3):\n"
        "    network = nets.random_network(np.random.default_rng(seed), 3, [5, 5])\n"
        "    parity = parity_bound(network, runs=3, seed=seed).survived\n"
        "    print(count_exactly(network).lower, count_exactly(network, 'patterns').lower, parity)\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "ONNXPRUNE_NO_NUMBA": "1", "PYTHONPATH": root}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = [nets.random_network(np.random.default_rng(seed), 3, [5, 5]) for seed in range(3)]
    expected = [
        f"{count_exactly(n).lower} {count_exactly(n, 'patterns').lower} {parity_bound(n, runs=3, seed=seed).survived}"
        for seed, n in enumerate(found)
    ]
    assert run.stdout.splitlines() == expected


def test_loops_are_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    genuine = numba.njit

    def without_a_folder(**options: object) -> object:
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return genuine(**options)

    monkeypatch.setattr(numba, "njit", without_a_folder)
    twice: Any = compiled.compiled(lambda x: 2 * x)
    assert (twice(2), len(twice.signatures)) == (4, 1)
