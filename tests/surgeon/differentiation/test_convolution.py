from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.surgeon.differentiation.support import Problem, check, close, model, samples


def layer(op: str, attributes: str, inputs: str, shape: tuple[int, ...], outs: int, seed: int) -> Problem:
    """A layer behind a varying factor, so that the cotangent of its input is asked for, too."""
    rng = np.random.default_rng(seed)
    weights = {"w": rng.normal(size=shape), "b": rng.normal(size=outs), "s": rng.normal(size=())}
    found = model(
        f"a = Mul(x, s)\n h = {op}{attributes and f'<{attributes}>'}(a, w, b)\n y = Tanh(h)",
        f"float[{inputs}] x",
        weights,
    )
    return Problem(found, ["w", "b", "s"], ["y"], samples(found, rng), np.float32)


CONVOLUTIONS: dict[str, tuple[str, str, tuple[int, ...], int]] = {
    "plain": ("", "N,2,5,6", (3, 2, 3, 2), 3),
    "padded": ("pads=[1,1,1,1]", "N,2,5,6", (3, 2, 3, 3), 3),
    "fixed batch": ("pads=[1,1,1,1]", "1,2,5,6", (3, 2, 3, 3), 3),
    "uneven padding": ("pads=[2,0,1,3]", "N,2,5,6", (3, 2, 3, 4), 3),
    "padding wider than the kernel": ("pads=[3,3,3,3]", "N,2,2,2", (2, 2, 2, 2), 2),
    "one by one": ("", "N,3,4,4", (2, 3, 1, 1), 2),
    "one by one with stride": ("strides=[2,2]", "N,3,5,4", (2, 3, 1, 1), 2),
    "stride": ("strides=[2,2], pads=[1,1,1,1]", "N,2,6,7", (3, 2, 3, 3), 3),
    "stride along the rows alone": ("strides=[3,1], pads=[1,1,1,1]", "N,2,8,5", (3, 2, 3, 3), 3),
    "stride along the columns alone": ("strides=[1,2], pads=[0,1,0,1]", "N,2,5,6", (3, 2, 2, 3), 3),
    "stride that leaves a rest": ("strides=[2,3]", "N,2,6,8", (3, 2, 3, 2), 3),
    "dilated": ("dilations=[2,3], pads=[2,3,2,3]", "N,2,6,7", (3, 2, 3, 3), 3),
    "dilated with stride": ("dilations=[2,2], strides=[2,1], pads=[2,1,2,1]", "N,2,7,6", (3, 2, 3, 3), 3),
    "groups": ("group=2, pads=[1,1,1,1]", "N,4,4,5", (6, 2, 3, 3), 6),
    "depthwise": ("group=4, pads=[1,1,1,1], strides=[2,2]", "N,4,6,5", (4, 1, 3, 3), 4),
    "depthwise with multiplier": ("group=3, pads=[1,1,1,1]", "N,3,4,4", (6, 1, 3, 3), 6),
    "same upper": ('auto_pad="SAME_UPPER", strides=[2,2]', "N,2,5,6", (3, 2, 3, 4), 3),
    "same lower": ('auto_pad="SAME_LOWER"', "N,2,5,6", (3, 2, 2, 4), 3),
    "valid": ('auto_pad="VALID"', "N,2,5,6", (3, 2, 3, 2), 3),
    "one axis": ("pads=[2,1], dilations=[2]", "N,2,9", (3, 2, 3), 3),
    "one axis with stride": ("strides=[3], pads=[1,0]", "N,2,10", (3, 2, 4), 3),
    "three axes": ("pads=[1,0,1,1,0,1], strides=[1,2,1]", "N,2,3,4,5", (2, 2, 2, 2, 3), 2),
    "a batch of two in one sample": ("pads=[1,1,1,1]", "2,2,4,4", (3, 2, 3, 3), 3),
    "small maps of many channels": ("pads=[1,1,1,1]", "N,12,2,2", (12, 12, 3, 3), 12),
}
TRANSPOSED: dict[str, tuple[str, str, tuple[int, ...], int]] = {
    "plain": ("", "N,2,4,5", (2, 3, 3, 2), 3),
    "stride": ("strides=[2,2], pads=[1,1,1,1]", "N,2,4,3", (2, 3, 3, 3), 3),
    "output padding": ("strides=[2,3], output_padding=[1,2]", "N,2,3,3", (2, 3, 3, 3), 3),
    "dilations": ("dilations=[2,1], pads=[1,0,0,1]", "N,4,4,4", (4, 3, 2, 3), 3),
    "one axis": ("strides=[2]", "N,3,4", (3, 2, 3), 2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_Conv(name: str) -> None:
    attributes, inputs, shape, outs = CONVOLUTIONS[name]
    check(layer("Conv", attributes, inputs, shape, outs, 20))


@pytest.mark.parametrize("name", TRANSPOSED)
def test_ConvTranspose(name: str) -> None:
    attributes, inputs, shape, outs = TRANSPOSED[name]
    check(layer("ConvTranspose", attributes, inputs, shape, outs, 21))


def test_a_kernel_that_is_computed_from_weights() -> None:
    rng = np.random.default_rng(22)
    body = """
        n = ReduceL2<keepdims=1>(w, axes)
        u = Div(w, n)
        k = Mul(u, g)
        h = Conv<pads=[1,1,1,1]>(x, k)
        y = Relu(h)
    """
    weights: dict[str, Any] = {"w": rng.normal(size=(3, 2, 3, 3)), "g": rng.normal(size=(3, 1, 1, 1))}
    found = model(body, "float[N,2,4,4] x", weights, constants="int64[3] axes = {1, 2, 3}")
    check(Problem(found, ["w", "g"], ["y"], samples(found, rng), np.float32))


def test_two_layers_that_share_a_kernel() -> None:
    rng = np.random.default_rng(23)
    body = "a = Conv<pads=[1,1,1,1]>(x, w, b)\n r = Tanh(a)\n h = Conv<pads=[1,1,1,1]>(r, w, b)\n y = Add(h, x)"
    found = model(body, "float[N,2,4,4] x", {"w": rng.normal(size=(2, 2, 3, 3)), "b": rng.normal(size=2)})
    check(Problem(found, ["w", "b"], ["y", "r"], samples(found, rng), np.float32))


def test_groups_of_ConvTranspose_are_layers_side_by_side() -> None:
    rng = np.random.default_rng(24)
    weights = {"w": rng.normal(size=(2, 3, 2, 3)), "v": rng.normal(size=(2, 3, 2, 3))}
    settings = "dilations=[2,1], strides=[1,2], pads=[1,0,0,1]"
    two = f"""
        k, l = Split<axis=1, num_outputs=2>(x)
        a = ConvTranspose<{settings}>(k, w)
        b = ConvTranspose<{settings}>(l, v)
        y = Concat<axis=1>(a, b)
    """
    one = f"k = Concat<axis=0>(w, v)\n y = ConvTranspose<group=2, {settings}>(x, k)"
    found = [model(body, "float[N,4,4,4] x", weights) for body in (one, two)]
    problems = [Problem(m, ["w", "v"], ["y"], samples(m, np.random.default_rng(0)), np.float32) for m in found]
    check(problems[1])
    c = {"y": rng.normal(size=problems[0].derivatives.forward(problems[0].feeds)["y"].shape)}
    for method in ("pull", "per_sample"):
        grouped, apart = (getattr(p.derivatives, method)(p.feeds, None, c) for p in problems)
        for name, wanted in apart.items():
            close(grouped[name], wanted, 1e-5, name)
    moved = [p.derivatives.push(p.feeds, None, weights)["y"] for p in problems]
    close(moved[0], moved[1], 1e-5, "tangent")
