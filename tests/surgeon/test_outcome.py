"""Figures of quality against what they are by definition."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import InputError, ValidationError
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.outcome import compare, outputs
from tests.helpers import parse, run
from tests.surgeon.small import data, dense_model

CPU = "CPUExecutionProvider"
DENSE = np.array([[3.0, 1.0], [0.0, 2.0], [1.0, 0.0], [0.0, 4.0]])
PRUNED = np.array([[3.0, 2.0], [0.0, 2.0], [0.0, 1.0], [0.0, 4.0]])


def test_by_hand() -> None:
    found = compare([DENSE], [PRUNED], np.array([0, 1, 1, 1]), classify=True)
    # squared errors 1 + 0 + 2 + 0; the columns have means 1 and 1.75: 6 + 8.75 about them
    assert found.relative_error == pytest.approx(np.sqrt(3 / 14.75))
    assert found.cosine == pytest.approx((11 / np.sqrt(10 * 13) + 1 + 0 + 1) / 4)
    assert (found.samples, found.agreement, found.accuracy, found.dense_accuracy) == (4, 0.75, 100.0, 75.0)


def test_several_outputs_count_together() -> None:
    both = compare([DENSE, 2 * DENSE], [PRUNED, 2 * DENSE], None, classify=False)
    assert both.relative_error == pytest.approx(np.sqrt(3 / (5 * 14.75)))
    assert both.agreement is None


@pytest.mark.parametrize(("after", "error", "cosine"), [(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (2.0, 1.0, 1.0)])
def test_outputs_that_are_all_alike_are_held_against_their_size(after: float, error: float, cosine: float) -> None:
    found = compare([np.ones((4, 3))], [np.full((4, 3), after)], None, classify=False)
    assert (found.relative_error, found.cosine) == pytest.approx((error, cosine))


def test_outputs_that_were_zero() -> None:
    nothing = np.zeros((4, 3))
    assert compare([nothing], [nothing], None, classify=False).cosine == 1.0
    moved = compare([nothing], [nothing + 1], None, classify=False)
    assert (moved.relative_error, moved.cosine) == (1.0, 0.0)


def test_a_metric_of_the_caller_sees_outputs_and_labels() -> None:
    labels = np.array([0, 1, 0, 1])
    found = compare([DENSE], [PRUNED], labels, classify=False, metric=lambda y, t: float(y[0][0, 1] + t.sum()))  # type: ignore[union-attr]
    assert (found.metric, found.dense_metric, found.accuracy) == (4.0, 3.0, None)


@pytest.mark.parametrize("inputs", ["float[N,16] x", "float[1,16] x"])
def test_outputs_are_those_of_the_model_whatever_its_batch(inputs: str) -> None:
    model = dense_model(inputs=inputs, outputs="float[M,5] y")
    samples = data(70)
    found = outputs(model, Calibration(samples, None), CPU, 1)
    np.testing.assert_allclose(found[0], run(dense_model(), samples)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "outs", "message"),
    [
        ("y = ArgMax <axis = 1, keepdims = 0> (x)", "int64[N] y", "no floating-point output"),
        ("y = ReduceSum <keepdims = 0> (x)", "float y", "for 20 samples"),
    ],
)
def test_outputs_that_cannot_be_compared(body: str, outs: str, message: str) -> None:
    model = parse(body, "float[N,16] x", outs)
    with pytest.raises(InputError, match=message):
        outputs(model, Calibration(data(20), None), CPU, 1)


def test_scores_are_needed_to_classify() -> None:
    with pytest.raises(InputError, match="one score per class"):
        compare([DENSE[:, :1]], [DENSE[:, :1]], None, classify=True)
    with pytest.raises(InputError, match="a label 2"):
        compare([DENSE], [DENSE], np.array([0, 1, 2, 0]), classify=True)


def test_nan_is_an_error() -> None:
    broken = np.where(DENSE > 3, np.nan, DENSE)
    with pytest.raises(InputError, match="NaN"):
        compare([broken], [DENSE], None, classify=False)
    with pytest.raises(ValidationError, match="NaN"):
        compare([DENSE], [broken], None, classify=False)
