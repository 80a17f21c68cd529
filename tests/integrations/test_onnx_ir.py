"""In onnx-ir's own pass manager."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import onnxprune
from tests.integrations.support import MODEL, OPTIONS, by_the_command, weights

ir = pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")


def test_the_pass_gives_what_the_command_gives(tmp_path: Path) -> None:
    from onnx_ir.passes.common import CheckerPass  # noqa: PLC0415 # skipped where it is missing

    from onnxprune.integrations.onnx_ir_pass import OptimizePass  # noqa: PLC0415

    given = ir.load(MODEL)
    before = weights(ir.to_proto(given))
    result = ir.passes.PassManager([OptimizePass("0:1", **OPTIONS), CheckerPass()], steps=2)(given)
    assert result.modified
    assert weights(ir.to_proto(result.model)) == weights(by_the_command(tmp_path)) != before
    assert weights(ir.to_proto(given)) == before
    assert not OptimizePass(**OPTIONS)(ir.from_proto(onnx.parser.parse_model(IDENTITY))).modified


IDENTITY = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,2] y) { y = Relu (x) }'


def test_mistakes_are_errors_of_the_pass() -> None:
    from onnxprune.integrations.onnx_ir_pass import OptimizePass  # noqa: PLC0415 # skipped where it is missing

    with pytest.raises(ir.passes.PassError, match="no input 'nothing'"):
        OptimizePass("nothing=0:1")(ir.load(MODEL))


def test_a_model_comes_back_as_the_kind_it_was(tmp_path: Path) -> None:
    wanted = weights(by_the_command(tmp_path))
    found = onnxprune.optimize(ir.load(MODEL), "0:1", **OPTIONS).model
    assert isinstance(found, ir.Model)
    assert weights(ir.to_proto(found)) == wanted


def test_weights_kept_in_files_are_read(tmp_path: Path) -> None:
    onnx.save(onnx.load(MODEL), tmp_path / "big.onnx", save_as_external_data=True, location="big.data")
    assert (tmp_path / "big.data").stat().st_size > 1000
    found = onnxprune.optimize(ir.load(tmp_path / "big.onnx"), "0:1", **OPTIONS).model
    assert weights(ir.to_proto(found)) == weights(by_the_command(tmp_path))
