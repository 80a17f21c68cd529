"""Chains of operators drawn at random; every step maps (batch, 2, 4, 4) to the same shape and may have weights."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.surgeon.differentiation.support import Problem, Tensor, check, model, samples

STEPS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "convolution": ("o = Conv<pads=[1,1,1,1]>(t, w, b)", {"w": (2, 2, 3, 3), "b": (2,)}),
    "depthwise": ("o = Conv<pads=[2,1,2,1], dilations=[2,1], group=2>(t, w)", {"w": (2, 1, 3, 3)}),
    "down and up": (
        "c = Conv<strides=[2,2]>(t, w)\n o = ConvTranspose<strides=[2,2]>(c, v)",
        {"w": (3, 2, 2, 2), "v": (3, 2, 2, 2)},
    ),
    "product on the right": ("o = MatMul(t, w)", {"w": (4, 4)}),
    "product on the left": ("o = MatMul(w, t)", {"w": (2, 4, 4)}),
    "dense": (
        "f = Flatten(t)\n g = Gemm<transB=1, alpha=0.3>(f, w, b)\n o = Reshape(g, shape)",
        {"w": (32, 32), "b": (32,)},
    ),
    "scale and shift": ("c = Mul(t, w)\n o = Add(c, b)", {"w": (2, 1, 1), "b": (4, 1)}),
    "batch norm": ("o = BatchNormalization(t, w, b, m, v)", {"w": (2,), "b": (2,)}),
    "layer norm": ("o = LayerNormalization<axis=2>(t, w)", {"w": (4, 4)}),
    "instance norm": ("o = InstanceNormalization<epsilon=0.1>(t, w, b)", {"w": (2,), "b": (2,)}),
    "soft maximum": ("o = Softmax<axis=1>(t)", {}),
    "logarithm of it": ("o = LogSoftmax<axis=-1>(t)", {}),
    "tanh": ("o = Tanh(t)", {}),
    "rectifier": ("o = Relu(t)", {}),
    "leaky rectifier": ("o = LeakyRelu<alpha=0.3>(t)", {}),
    "sigmoid gate": ("c = Sigmoid(t)\n o = Mul(c, t)", {}),
    "hard swish": ("o = HardSwish(t)", {}),
    "square": ("o = Mul(t, t)", {}),
    "quotient": ("c = Exp(t)\n d = Add(c, one)\n o = Div(t, d)", {}),
    "largest of windows": ("o = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(t)", {}),
    "mean of windows": ("o = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(t)", {}),
    "centred": ("c = ReduceMean(t, axes)\n o = Sub(t, c)", {}),
    "over its norm": ("c = ReduceL2(t, axes)\n d = Add(c, one)\n o = Div(t, d)", {}),
    "below its largest": ("c = ReduceMax(t, axes)\n o = Sub(t, c)", {}),
    "turned": ("o = Transpose<perm=[0,1,3,2]>(t)", {}),
    "channels swapped": ("c, d = Split<axis=1, num_outputs=2>(t)\n o = Concat<axis=1>(d, c)", {}),
    "shifted": ("c = Pad(t, pads)\n o = Slice(c, start, end, axis)", {}),
    "choice": ("c = Greater(t, one)\n d = Neg(t)\n o = Where(c, d, t)", {}),
    "self-attention": ("c = Transpose<perm=[0,1,3,2]>(t)\n d = MatMul(t, c)\n e = Softmax(d)\n o = MatMul(e, t)", {}),
    "residual": ("c = MatMul(t, w)\n d = Max(c, t)\n o = Add(d, t)", {"w": (4, 4)}),
}
CONSTANTS = """
    int64[4] shape = {0, 2, 4, 4}, float one = {1}, float[2] m = {0.1, -0.2}, float[2] v = {0.5, 2},
    int64[2] axes = {1, 3}, int64[8] pads = {0, 0, 0, 1, 0, 0, 0, 0}, int64[1] start = {0}, int64[1] end = {4},
    int64[1] axis = {3}
"""


def chain(names: list[str], batch: str, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    weights: dict[str, Tensor] = {"scale": rng.normal(size=(2, 4, 4))}
    lines, here = ["s0 = Mul(x, scale)"], "s0"
    for number, name in enumerate(names, start=1):
        body, shapes = STEPS[name]
        known = {own: f"{own}{number}" for own in (*shapes, "o", "c", "d", "e", "f", "g")} | {"t": here}
        here = f"o{number}"
        lines += [_renamed(line, known) for line in body.split("\n")]
        weights |= {known[own]: rng.normal(size=shape) / np.sqrt(shape[-1]) for own, shape in shapes.items()}
    found = model("\n".join(lines), f"float[{batch},2,4,4] x", weights, outputs=(here,), constants=CONSTANTS)
    return Problem(found, list(weights), [here], samples(found, rng, 2), np.float32)


def _renamed(line: str, known: dict[str, str]) -> str:
    """Tensor names of a step made unique: those before ``=`` and those in the last brackets."""
    left, right = line.split("=", 1)
    op, operands = right.rsplit("(", 1)

    def names(text: str) -> str:
        return ", ".join(known.get(name.strip(), name.strip()) for name in text.strip(" )").split(","))

    return f"{names(left)} = {op}({names(operands)})"


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=3),
    batch=st.sampled_from(["N", "1"]),
    seed=st.integers(0, 1000),
)
def test_chains(names: list[str], batch: str, seed: int) -> None:
    check(chain(names, batch, seed), tolerance=3e-4)


def test_every_step_by_itself() -> None:
    for name in STEPS:
        check(chain([name], "N", 0), tolerance=3e-4)
