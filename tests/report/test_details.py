"""What pages show besides the JSON report: bounds per unit, and single latencies."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune.stability import State
from tests.helpers import DENSE, parse
from tests.report.support import lossless, lossy


def test_bounds_and_margins_by_hand() -> None:
    """Over the unit square x1 - x2 is in [-1, 1], x1 + x2 + 1 in [1, 3], -x1 - x2 - 2 in [-4, -2]."""
    values = {
        "w1": np.array([[1, -1], [1, 1], [-1, -1]], np.float32),
        "b1": np.array([0, 1, -2], np.float32),
        "w2": np.array([[1, 2, 3]], np.float32),
        "b2": np.zeros(1, np.float32),
    }
    model = parse(DENSE, "float[1,2] x", "float[1,1] y", values)
    report = onnxprune.inspect(model, "0:1", budget=0, remember=False)
    layer = report.details.layers[0]
    assert layer.states[1:] == (State.ACTIVE, State.INACTIVE)
    np.testing.assert_allclose(layer.lower, [-1, 1, -4], rtol=1e-5)
    np.testing.assert_allclose(layer.upper, [1, 3, -2], rtol=1e-5)
    np.testing.assert_allclose(layer.margins[1:], [1, 2], rtol=1e-5)
    assert report.details.latencies == {}


@pytest.mark.parametrize("kind", ["lossless", "lossy"])
def test_the_latency_of_a_report_is_the_20_percent_quantile_of_the_single_runs(kind: str) -> None:
    report = (lossless() if kind == "lossless" else lossy()).report
    assert list(report.details.latencies) == ["before", "tidied", "after"]
    for stage, times in report.details.latencies.items():
        assert report[stage]["latency_ms"] == pytest.approx(float(np.quantile(times, 0.2)))
