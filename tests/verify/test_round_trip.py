"""What optimize removes is verified: through the library, on the command line, and with rational numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from onnxprune import ValidationError, optimize
from onnxprune.verify.checker import Verdict, check
from tests.helpers import command
from tests.nets import random_convnet, random_mlp
from tests.verify.support import Case, case, handed_on_case, near_stable, parallel_case, proved_by_cases, split_case

MODELS = Path(__file__).parents[2] / "models"
STATES = {"slim_cnn": 48, "mnist_l1": 105, "controller": 97}
"""Least number of units that the rewrite used the state of."""


def same(one: Verdict, other: Verdict) -> None:
    """Both verdicts count the same, and the exact one proves no larger deviation."""
    assert (one.units, one.methods, one.solver) == (other.units, other.methods, other.solver)
    assert one.deviation.keys() == other.deviation.keys()
    for name, value in other.deviation.items():
        assert value <= one.deviation[name] + 1e-12


@pytest.mark.parametrize(
    ("name", "box"),
    [("slim_cnn", None), ("mnist_l1", "0:1"), ("controller", str(MODELS / "controller_domain.npz"))],
)
def test_models_of_the_project(name: str, box: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, smaller, certificate = MODELS / f"{name}.onnx", tmp_path / "b.onnx", tmp_path / "c.json"
    # With intervals alone: how long a search may take is not what is tested here.
    domain = [] if box is None else ["--domain", box]
    settings = [*domain, "--goal", "size", "--align", "1", "--budget", "0", "--forget", "--quiet"]
    ran = command(capsys, "optimize", original, smaller, *settings, "--certificate", certificate)
    assert ran.code == 0, ran.err
    report = tmp_path / "r.json"
    ran = command(capsys, "verify", certificate, original, smaller, "--report", report)
    assert ran.code == 0, ran.out
    assert "VERIFIED" in ran.out
    found = json.loads(report.read_text())
    assert found["verified"]
    assert found["solver"] == 0
    assert sum(found["units"].values()) >= STATES[name]
    assert max(found["deviation"].values()) < 1e-3


def test_rational_numbers_on_a_model_of_the_project() -> None:
    result = optimize(
        onnx.load(MODELS / "controller.onnx"),
        str(MODELS / "controller_domain.npz"),
        budget=0.0,
        certificate=True,
        remember=False,
    )
    assert result.certificate is not None
    models = onnx.load(MODELS / "controller.onnx"), result.model
    certificate = result.certificate.certificate
    same(check(certificate, *models), check(certificate, *models, exact=True))


@pytest.mark.parametrize("make", [split_case, proved_by_cases, parallel_case, handed_on_case])
def test_rational_numbers_agree(make: Callable[[], Case]) -> None:
    found = make()
    same(found.check(), found.check(exact=True))


@pytest.mark.parametrize("seed", range(1, 7))
def test_networks_with_units_that_are_stable_by_little(seed: int) -> None:
    found = case(near_stable(seed), "-1:1")
    same(found.check(), found.check(exact=True))


@pytest.mark.parametrize("box", ["0:1", None])
def test_random_networks(box: str | None) -> None:
    """Where a certificate is made, it is right; where none can be made, that is said."""
    made = 0
    for seed in range(12):
        try:
            result = optimize(random_mlp(seed), box, budget=0.2, align=1, certificate=True, remember=False)
        except ValidationError:
            continue
        assert result.certificate is not None
        models, certificate = (random_mlp(seed), result.model), result.certificate.certificate
        check(certificate, *models)
        made += 1
    assert made >= 8


@pytest.mark.parametrize("model", [near_stable(0), *map(random_mlp, (0, 1, 4, 10))])
def test_rational_numbers_agree_on_bounds_near_zero(model: onnx.ModelProto) -> None:
    found = case(model, "-1:1")
    same(found.check(), found.check(exact=True))


CONVOLUTIONS = [(0, None), (5, None), (17, None), (21, "0:1"), (26, "0:1"), (27, "0:1"), (33, None), (37, "0:1")]
"""Plain ones, gates that are constant, Gemm with factors, carriers, constant results, single channels, idle Elu."""


@pytest.mark.parametrize(("seed", "box"), CONVOLUTIONS)
def test_random_convolutions(seed: int, box: str | None) -> None:
    result = optimize(random_convnet(seed), box, budget=0.0, align=1, certificate=True, remember=False)
    assert result.certificate is not None
    assert result.modified
    check(result.certificate.certificate, random_convnet(seed), result.model)


def test_a_model_with_residual_streams() -> None:
    result = optimize(onnx.load(MODELS / "residual.onnx"), "0:1", budget=0.0, certificate=True, remember=False)
    assert result.certificate is not None
