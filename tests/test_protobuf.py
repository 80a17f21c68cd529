"""Sizes of models in one piece and beyond."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import protobuf
from onnxprune.graph.files import fingerprint
from tests.passes.support import net


def test_the_size_is_that_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net("y = MatMul (x, w)", "float[N,64] x", "float[N,64] y", w=np.ones((64, 64), np.float32))
    exact = len(model.SerializeToString())
    assert protobuf.byte_size(model) == exact
    monkeypatch.setattr(protobuf, "LIMIT", 1024)
    assert abs(protobuf.byte_size(model) - exact) < 300


def test_a_fingerprint_sees_weights_and_nodes_but_not_our_metadata() -> None:
    one, other = (net("y = MatMul (x, w)", outputs="float[N,2] y", w=np.eye(2, dtype=np.float32)) for _ in range(2))
    assert fingerprint(one) == fingerprint(other)
    other.metadata_props.add(key="onnxprune.align", value="8")
    assert fingerprint(one) == fingerprint(other)
    other.graph.initializer[0].raw_data = np.ones((2, 2), np.float32).tobytes()
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) != fingerprint(
        net("y = Gemm (x, w)", outputs="float[N,2] y", w=np.eye(2, dtype=np.float32))
    )
