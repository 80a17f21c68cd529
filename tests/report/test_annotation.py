"""Notes in the nodes of changed layers: only when asked for, and in nobody's way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

import onnxprune
from onnxprune.graph.files import fingerprint
from tests.helpers import DEAD, DENSE, HIDDEN, assert_equal_models, command, dense, parse, session, untouchable, weights

OPTIONS: dict[str, Any] = {"goal": "size", "budget": 0, "remember": False}


def notes(model: onnx.ModelProto) -> dict[str, dict[str, str]]:
    """Our metadata per node, by its first output."""
    found = {n.output[0]: {p.key: p.value for p in n.metadata_props} for n in model.graph.node}
    return {name: entries for name, entries in found.items() if entries}


@pytest.mark.parametrize(("opset", "ir"), [(9, 4), (13, 7), (17, 8), (21, 10)])
def test_changed_layers_say_what_went(opset: int, ir: int) -> None:
    model = dense(opset=opset, ir=ir)
    result = onnxprune.optimize(model, annotate=True, **OPTIONS).model
    states = f"inactive {len(DEAD)}, undecided {HIDDEN - len(DEAD)}"
    assert notes(result) == {
        "h": {
            "onnxprune.units": f"{HIDDEN - len(DEAD)} of {HIDDEN}",
            "onnxprune.removed_units": str(len(DEAD)),
            "onnxprune.states": states,
        }
    }
    assert result.ir_version == ir
    onnx.checker.check_model(result, full_check=True)
    assert_equal_models(model, result)


def test_they_are_there_on_request_only_and_no_part_of_the_model() -> None:
    plain = onnxprune.optimize(dense(), **OPTIONS).model
    noted = onnxprune.optimize(dense(), annotate=True, **OPTIONS).model
    assert notes(plain) == {}
    assert fingerprint(noted) == fingerprint(plain)


def test_a_model_that_nothing_goes_from_stays_as_it_is() -> None:
    model = untouchable()
    result = onnxprune.optimize(model, annotate=True, **OPTIONS)
    assert not result.modified
    assert result.model.SerializeToString() == model.SerializeToString()


def test_a_second_run_keeps_them() -> None:
    first = onnxprune.optimize(dense(), annotate=True, **OPTIONS).model
    second = onnxprune.optimize(first, annotate=True, **OPTIONS)
    assert not second.modified
    assert second.model.SerializeToString() == first.SerializeToString()


def test_the_notes_of_others_stay() -> None:
    model = dense()
    for node in model.graph.node:
        node.metadata_props.add(key="pkg", value="torch")
    result = onnxprune.optimize(model, annotate=True, **OPTIONS).model
    assert all(entries["pkg"] == "torch" for entries in notes(result).values())
    assert notes(result)["h"]["onnxprune.removed_units"] == str(len(DEAD))


def test_layers_that_cannot_be_told_apart_stay_as_they_are() -> None:
    model = parse(DENSE, weights=weights())
    model.graph.node[0].name = "r"
    assert notes(onnxprune.optimize(model, annotate=True, **OPTIONS).model) == {}


def test_a_certificate_covers_an_annotated_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, result, proof = (str(tmp_path / name) for name in ("model.onnx", "out.onnx", "c.json"))
    onnx.save(dense(), original)
    ran = command(capsys, "optimize", original, result, "--annotate", "--certificate", proof, "--goal", "size")
    assert ran.code == 0
    assert "h" in notes(onnx.load(result))
    assert command(capsys, "verify", proof, original, result).code == 0
    session(onnx.load(result))
