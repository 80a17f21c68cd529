"""Identity and Dropout."""

from __future__ import annotations

import pytest

from onnxprune.operators.channels import ChannelMap
from tests.operators.entrywise import ELEMENTWISE, box, ends, view


@pytest.mark.parametrize(
    ("body", "opset", "known"),
    [
        ("y = Dropout(x)", 6, False),
        ("y = Dropout <is_test = 1> (x)", 6, True),
        ("y, m = Dropout <ratio = 0.3> (x)", 10, True),
        ("y = Dropout(x)", 13, True),
        ("y, m = Dropout(x, r, off)", 13, True),
        ("y = Dropout(x, r, on)", 13, False),
        ("y = Dropout(x, r, t)", 13, False),
    ],
)
def test_dropout_is_the_identity_at_inference(body: str, opset: int, known: bool) -> None:
    node = view(body, "float[N,3] x, bool t", opset, "float r = {0.5}, bool on = {1}, bool off = {0}")
    dropout = ELEMENTWISE["Dropout"]
    assert dropout.channels(node, ChannelMap({})) == known
    result = dropout.interval(node, [box(-1, 2)])
    assert (result is not None) == known
    if result is not None:
        assert len(result) == node.n_outputs
        assert ends(result[0]) == (-1, 2)
