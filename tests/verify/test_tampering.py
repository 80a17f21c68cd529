"""A certificate or a model that was changed is rejected, also by whoever can forge fingerprints and seals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.certificate.writing import content
from onnxprune.verify.certificate import Witnesses
from onnxprune.verify.reading import parsed, seal
from onnxprune.verify.reasons import Rejected
from tests.helpers import command
from tests.verify.changes import Change, changes
from tests.verify.forgeries import forged, forgeries, with_weight
from tests.verify.support import HIDDEN, Case, handed_on_case, parallel_case, proved_by_cases, solver_case, split_case

CASES = {f.__name__: f for f in (split_case, proved_by_cases, parallel_case, handed_on_case, solver_case)}
KINDS = 200
"""Least number of different kinds of change."""

NOT_CONTENT = r"(format|version|seal|arrays)\b.*"
"""The envelope, which :func:`read` looks at; it is changed on disk in the tests below."""
HARMLESS = (
    # Evidence that nothing refers to, evidence given twice, and evidence left out that no claim needs.
    r"cuts longer",
    r"bounds\.original (shorter|longer)",
    r"bounds\.original\.\*\.cases longer",
    r"bounds\.original\.\*\.cases\.\*\.phases longer",
    # Other multipliers or fewer phases, where another case is the worst one: they prove as much.
    r"bounds\.original\.\*\.cases\.\*\.(phases|phases\.\*|multipliers.*|constraints.*) "
    r"(shorter|one less|empty|removed|larger|smaller)",
    # The same constraint on another entry of the same box: the evidence proves the same bound there.
    r"domain\.constraints\.\*\.terms\.\* one (more|less)",
    # A smaller domain whose extremes no bound depends on: the claims hold there, too.
    r"domain\.inputs\.NAME\.lower(\.\*)? larger",
    r"domain\.inputs\.NAME\.upper(\.\*)? smaller",
    # A looser promise: it stays true, and only what is more than twice too loose is refused.
    r"promise\.NAME\.(deviation|rounding) larger",
    # Fewer witnesses, and further points.
    r"witnesses\.seen empty",
    r"witnesses\.seen\.NAME (shorter|empty|removed)",
    r"witnesses\.points\.NAME\.bits longer",
)


def excused(change: Change) -> bool:
    """Whether a change may be accepted."""
    return any(re.fullmatch(pattern, change.kind) for pattern in (NOT_CONTENT, *HARMLESS))


@pytest.mark.parametrize("name", CASES)
def test_every_change_of_the_content_is_rejected_with_a_reason(name: str) -> None:
    found = CASES[name]()
    accepted, mute = [], []
    for change in changes(found.content):
        if excused(change):
            continue
        try:
            found.check(change.apply(found.content))
        except Rejected as error:
            mute += [] if error.what else [change.kind]
        else:
            accepted.append((change.kind, change.path, change.value))
    assert not accepted
    assert not mute


def test_forgeries_are_rejected_with_a_reason() -> None:
    for name, attempt in forgeries():
        with pytest.raises(Rejected) as caught:
            attempt()
        assert caught.value.what, name


def test_there_are_many_kinds_of_change() -> None:
    kinds = {change.kind for make in CASES.values() for change in changes(make().content) if not excused(change)}
    assert len(kinds) >= KINDS


def resealed(found: dict[str, Any]) -> dict[str, Any]:
    """The same with the seal that belongs to it."""
    return {**found, "seal": seal(found)}


def files(folder: Path, case: Case, text: str | None = None) -> list[str]:
    """Command-line arguments for a case, with other text in place of its certificate."""
    onnx.save(case.original, folder / "a.onnx")
    onnx.save(case.optimized, folder / "b.onnx")
    (folder / "c.json").write_text(json.dumps(case.content) if text is None else text)
    return ["verify", *(str(folder / name) for name in ("c.json", "a.onnx", "b.onnx"))]


ENVELOPE: dict[str, tuple[int, Callable[[dict[str, Any]], str]]] = {
    "truncated": (2, lambda c: json.dumps(c)[:-200]),
    "empty": (2, lambda c: ""),
    "a list": (2, lambda c: json.dumps([c])),
    "another format": (2, lambda c: json.dumps(resealed({**c, "format": "other"}))),
    "a later version": (2, lambda c: json.dumps(resealed({**c, "version": c["version"] + 1}))),
    "no version": (2, lambda c: json.dumps(resealed({k: v for k, v in c.items() if k != "version"}))),
    "another seal": (1, lambda c: json.dumps({**c, "seal": "0" * 64})),
    "no seal": (1, lambda c: json.dumps({k: v for k, v in c.items() if k != "seal"})),
    "a change under the old seal": (1, lambda c: json.dumps({**c, "witnesses": {"points": {}, "seen": {}}})),
    "a missing file of arrays": (2, lambda c: json.dumps(resealed({**c, "arrays": {"file": "n.npz", "sha256": "0"}}))),
    "arrays elsewhere": (1, lambda c: json.dumps(resealed({**c, "arrays": {"file": "../a.npz", "sha256": "0"}}))),
    "no claims": (1, lambda c: json.dumps(resealed({k: v for k, v in c.items() if k != "claims"}))),
}


@pytest.mark.parametrize("what", ENVELOPE)
def test_damaged_files(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, damage = ENVELOPE[what]
    ran = command(capsys, *files(tmp_path, split_case(), damage(split_case().content)))
    assert ran.code == code
    assert ran.out.startswith("REJECTED: ") if code == 1 else ran.err.startswith("onnxprune: ")


def test_damaged_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = Witnesses({"x": np.zeros((99, 3), dtype=bool)})
    found, data = content(replace(parsed(split_case().content, {}), witnesses=many), "c.npz")
    assert data is not None
    arguments = files(tmp_path, split_case(), json.dumps(found))
    (tmp_path / "c.npz").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ran = command(capsys, *arguments)
    assert ran.code == 1
    assert "c.npz is not the file that belongs to the certificate" in ran.out


def test_files_in_the_wrong_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify, certificate, one, other = files(tmp_path, split_case())
    for code, given in (
        (0, (certificate, one, other)),
        (1, (certificate, other, one)),
        (1, (certificate, one, one)),
        (2, (one, one, other)),
        (2, (certificate, one, certificate)),
        (2, (certificate, one)),
    ):
        assert command(capsys, verify, *given).code == code


def test_a_certificate_of_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, *files(tmp_path, split_case(), json.dumps(parallel_case().content)))
    assert ran.code == 1
    assert "another original" in ran.out


def test_a_larger_domain_than_the_certified_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = files(tmp_path, split_case())
    assert command(capsys, *arguments, "--domain", "-1:1").code == 0
    assert command(capsys, *arguments, "--domain", "-0.5:1").code == 0
    ran = command(capsys, *arguments, "--domain", "-1:1.01")
    assert ran.code == 1
    assert "does not cover" in ran.out


@pytest.mark.parametrize("make", [split_case, handed_on_case])
@pytest.mark.parametrize("which", ["original", "optimized"])
def test_one_changed_weight(make: Callable[[], Case], which: str) -> None:
    case = make()
    model = getattr(case, which)
    dead = {("w3", row * HIDDEN + unit) for row in range(2) for unit in removed(case)}
    tried = 0
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        for entry in range(0, values.size, max(1, values.size // 5)):
            # What multiplies a unit that is always 0 can be anything.
            if values.dtype != np.float32 or (which == "original" and (tensor.name, entry) in dead):
                continue
            changed = with_weight(model, tensor.name, entry, 1e-3)
            pair = {"original": case.original, "optimized": case.optimized} | {which: changed}
            with pytest.raises(Rejected, match="fingerprints differ"):
                Case(pair["original"], pair["optimized"], case.content).check()
            with pytest.raises(Rejected) as caught:
                forged(case, **pair).check()
            assert "fingerprint" not in caught.value.what
            tried += 1
    assert tried >= 10


def removed(case: Case) -> list[int]:
    """Units that the claims of a case call inactive."""
    return [unit for claim in case.content["claims"] if claim["state"] == "inactive" for unit in claim["units"]]


def without(model: onnx.ModelProto, unit: int) -> onnx.ModelProto:
    """A network of :func:`near_stable` without a unit of its second layer."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for tensor in found.graph.initializer:
        axis = {"w2": 0, "b2": 0, "w3": 1}.get(tensor.name)
        if axis is not None:
            values = np.delete(numpy_helper.to_array(tensor), unit, axis=axis)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    return found


@pytest.mark.parametrize("state", ["inactive", "active", "constant", "unread", None])
def test_a_removed_unit_that_is_not_stable(state: str | None) -> None:
    case = split_case()
    for unit in set(range(HIDDEN)) - set(removed(case)):
        rows = np.insert(np.arange(HIDDEN - 1), unit, -1).tolist()
        tensors = [{"original": "c", "optimized": "c", "rows": rows}, {"original": "y", "optimized": "y"}]
        claim = {"tensor": "c", "result": "s", "state": state, "units": [unit], "bounds": [-0.5], "margins": [0.5]}
        claims = [] if state is None else [{**claim, "method": "split", "trust": "certified"}]
        relation = {"tensors": tensors, "handed_on": {}}
        smaller = without(case.original, unit)
        with pytest.raises(Rejected):
            forged(case, case.original, smaller, relation=relation, claims=claims).check()
        bound = {"tensor": "c", "side": "upper", "entries": [unit], "bounds": [-0.5]}
        plain = {**bound, "method": "linear", "trust": "certified", "rule": "adaptive"}
        steps = {"original": [*case.content["bounds"]["original"], plain], "optimized": []}
        with pytest.raises(Rejected, match="the evidence proves an upper bound of"):
            forged(case, case.original, smaller, relation=relation, claims=claims, bounds=steps).check()


def test_the_unit_that_is_stable_can_be_removed_by_hand() -> None:
    """The forgeries above fail for want of a proof, not of form."""
    case = split_case()
    (unit,) = removed(case)
    forged(case, case.original, without(case.original, unit)).check()


def test_a_solvers_word_does_not_become_a_proof() -> None:
    case = solver_case()
    assert case.check().solver
    changed = deepcopy(case.content)
    for step in changed["bounds"]["original"]:
        step["trust"] = "certified"
    with pytest.raises(Rejected, match="the evidence proves"):
        case.check(changed)
