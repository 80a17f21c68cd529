"""Inputs that a domain freezes: single positions of a channel, of which no unit is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import optimize
from onnxprune.certificate import making
from onnxprune.certificate.needs import idle
from onnxprune.verify.checker import check
from tests.helpers import parse

SHARED = Path(__file__).resolve().parents[3] / "shared" / "models" / "vnncomp" / "marabou-cifar10"
BODY = """
    c = Conv <kernel_shape = [2, 2]> (x, k1, b1)
    r = Relu (c)
    d = Conv <kernel_shape = [2, 2]> (r, k2, b2)
    s = Relu (d)
    f = Flatten (s)
    y = Gemm <transB = 1> (f, w, b)
"""


def test_positions_of_a_channel_that_stays(tmp_path: Path) -> None:
    """Two of three channels go, and of the third one 25 positions: bounds of its row carry over to the result."""
    rng = np.random.default_rng(1)
    scales = {"k1": 1.0, "b1": 0.3, "k2": 1.0, "b2": 0.5, "w": 1.0, "b": 1.0}
    shapes = {"k1": (4, 1, 2, 2), "b1": (4,), "k2": (3, 4, 2, 2), "b2": (3,), "w": (64, 192), "b": (64,)}
    arrays = {name: (rng.normal(size=shape) * scales[name]).astype(np.float32) for name, shape in shapes.items()}
    model = parse(BODY, "float[1,1,10,10] x", "float[1,64] y", arrays)
    image = rng.random((1, 1, 10, 10)).astype(np.float32)
    box = tmp_path / "box.npz"
    ends: dict[str, Any] = {"x.lower": image - np.float32(0.05), "x.upper": image + np.float32(0.05)}
    np.savez(box, **ends)
    result = optimize(model, str(box), goal="size", align=1, certificate=True, remember=False)
    assert "Gather" in [node.op_type for node in result.model.graph.node]
    assert result.certificate is not None
    certificate = result.certificate.certificate
    assert check(certificate, model, result.model).units == check(certificate, model, result.model, exact=True).units


@pytest.mark.skipif(not SHARED.is_dir(), reason="the VNN-COMP files lie in shared/models/vnncomp beside the repository")
def test_positions_that_linear_bounds_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """No state of a unit was used; what freezes inputs is proved all the same."""
    model = onnx.load(SHARED / "cifar10_small.onnx")
    domain = str(next(SHARED.glob("*target1_orig0.vnnlib")))
    settings: dict[str, Any] = {"budget": 10.0, "goal": "size", "align": 1, "remember": False}
    asked: list[int] = []

    def noted(*given: Any) -> Any:
        asked.append(1)
        return idle(*given)

    monkeypatch.setattr(making, "idle", noted)
    result = optimize(model, domain, certificate=True, **settings)
    assert result.certificate is not None
    assert asked
    assert result.certificate.certificate.steps
    assert check(result.certificate.certificate, model, result.model).deviation["Identity:0"] < 1e-6
