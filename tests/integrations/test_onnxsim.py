"""In onnxsim's own fixed point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxprune.integrations.onnxsim_rewriter import rewriter
from tests.integrations.support import MODEL, OPTIONS, by_the_command, weights

onnxsim = pytest.importorskip("onnxsim", reason="onnxsim is not installed")


def test_the_rewriter_gives_what_the_command_gives(tmp_path: Path) -> None:
    rewrite = rewriter("0:1", **OPTIONS)
    found, fine = onnxsim.simplify(onnx.load(MODEL), custom_rewriter=rewrite)
    assert fine
    assert rewrite(found) is False  # nothing is left to do
    wanted = by_the_command(tmp_path)
    assert sorted(weights(found).values()) == sorted(weights(wanted).values())
    image = np.random.default_rng(0).random((3, 1, 28, 28)).astype(np.float32)
    name = wanted.graph.input[0].name
    shape = [size.dim_value or 3 for size in wanted.graph.input[0].type.tensor_type.shape.dim]
    answers = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {name: image.reshape(shape)}
        )[0]
        for m in (found, wanted)
    ]
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-5)
