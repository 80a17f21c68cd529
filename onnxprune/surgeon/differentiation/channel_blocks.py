"""How many channels ONNX Runtime's CPU provider keeps in a block on this machine: found out by trying."""

from __future__ import annotations

from functools import cache

import numpy as np

from onnxprune.errors import EnvironmentFailure
from onnxprune.operators.onnx_tape import OnnxTape
from onnxprune.operators.onnx_windows import slide, unslide
from onnxprune.operators.tape import Window
from onnxprune.runtime import Runner
from onnxprune.surgeon.differentiation.blocked_layout import with_blocked_convolutions

CANDIDATES = (16, 8)


@cache
def channel_block() -> int | None:
    """The size with which convolutions in blocks agree with plain ones; None where there is none."""
    tape = OnnxTape()
    x, w = tape.input("x", (1, 16, 4, 4)), tape.input("w", (16, 16, 3, 3), rows=False)
    window = Window((1, 1), (1, 1), (1, 1))
    back = unslide(tape, tape.append("Relu", [slide(tape, x, w, window, (4, 4))], (1, 16, 4, 4)), w, window, (4, 4))
    model = tape.finish({"y": back})
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.normal(size=(2, 16, 4, 4)).astype(np.float32),
        "w": rng.normal(size=(16, 16, 3, 3)).astype(np.float32),
    }
    wanted = Runner(model, threads=1).run(feeds)[0]
    for size in CANDIDATES:
        try:
            found = Runner(with_blocked_convolutions(model, size), threads=1).run(feeds)[0]
        except EnvironmentFailure:
            continue
        if np.allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max()):
            return size
    return None
