from __future__ import annotations

import numpy as np
import pytest

from tests.surgeon.differentiation.support import Problem, check, close, model, samples

CASES = {
    "layer": ("LayerNormalization<axis=-1>(a, g, s)", (5,)),
    "layer over two axes": ("LayerNormalization<axis=2, epsilon=0.01>(a, g, s)", (4, 5)),
    "layer over whole samples": ("LayerNormalization<axis=1>(a, g, s)", (6, 4, 5)),
    "instance": ("InstanceNormalization<epsilon=0.1>(a, g, s)", (6,)),
    "group": ("GroupNormalization<num_groups=3>(a, g, s)", (6,)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", ["N", "1"])
def test_norms(case: str, batch: str) -> None:
    rng = np.random.default_rng(30)
    node, shape = CASES[case]
    weights = {"w": rng.normal(size=(6, 4, 5)), "g": rng.normal(size=shape), "s": rng.normal(size=shape)}
    found = model(f"a = Mul(x, w)\n h = {node}\n y = Tanh(h)", f"float[{batch},6,4,5] x", weights)
    check(Problem(found, ["w", "g", "s"], ["y"], samples(found, rng)), tolerance=1e-5)


def test_layer_norm_without_shift_in_rows_without_batch() -> None:
    rng = np.random.default_rng(31)
    body = "a = Mul(x, w)\n y = LayerNormalization<axis=0>(a, g)"
    found = model(body, "float[3,4] x", {"w": rng.normal(size=4), "g": rng.normal(size=(3, 4))})
    check(Problem(found, ["w", "g"], ["y"], samples(found, rng)), tolerance=1e-5)


def test_root_mean_square_norm() -> None:
    rng = np.random.default_rng(32)
    body = "a = Mul(x, w)\n y = RMSNormalization<axis=-1>(a, g)"
    found = model(body, "float[N,3,4] x", {"w": rng.normal(size=4), "g": rng.normal(size=4)}, opset=23)
    check(Problem(found, ["w", "g"], ["y"], samples(found, rng)), tolerance=1e-5)


@pytest.mark.parametrize("dims", ["N,3,4,2", "1,3,4,2", "N,3"])
def test_BatchNormalization(dims: str) -> None:
    rng = np.random.default_rng(33)
    weights = {
        "w": rng.normal(size=(3, *[1] * dims.count(",")))[..., 0],
        "g": rng.normal(size=3),
        "s": rng.normal(size=3),
    }
    weights |= {"m": rng.normal(size=3), "v": rng.random(3) + 0.5}
    body = "a = Mul(x, w)\n h = BatchNormalization<epsilon=0.01>(a, g, s, m, v)\n y = Tanh(h)"
    weights["w"] = rng.normal(size=(3, *[1] * (dims.count(",") - 1)))
    found = model(body, f"float[{dims}] x", weights)
    check(Problem(found, list(weights), ["y"], samples(found, rng), np.float32))


SOFT = {
    "last axis": ("axis=-1", 13),
    "middle axis": ("axis=1", 13),
    "axis of the batch": ("axis=0", 13),
}


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("case", SOFT)
def test_soft_maxima(op: str, case: str) -> None:
    rng = np.random.default_rng(34)
    attributes, opset = SOFT[case]
    found = model(
        f"a = Mul(x, w)\n y = {op}<{attributes}>(a)", "float[1,3,4,2] x", {"w": rng.normal(size=(3, 4, 2))}, opset=opset
    )
    check(Problem(found, ["w"], ["y"], samples(found, rng)), tolerance=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_old_soft_maxima_share_all_axes_behind_theirs(axis: int) -> None:
    rng = np.random.default_rng(35)
    weights = {"w": rng.normal(size=(3, 4, 2))}
    constants = "int64[4] shape = {1, 3, 4, 2}"
    for op in ("Softmax", "LogSoftmax"):
        old = model(f"a = Mul(x, w)\n y = {op}<axis={axis}>(a)", "float[1,3,4,2] x", weights, opset=11)
        body = f"a = Mul(x, w)\n f = Flatten<axis={axis}>(a)\n s = {op}<axis=-1>(f)\n y = Reshape(s, shape)"
        new = model(body, "float[1,3,4,2] x", weights, constants=constants)
        problems = [Problem(m, ["w"], ["y"], samples(m, np.random.default_rng(0))) for m in (old, new)]
        check(problems[1], tolerance=1e-6)
        value = [p.derivatives.forward(p.feeds)["y"] for p in problems]
        close(value[0], value[1], 1e-9, op)
        moved = [p.derivatives.push(p.feeds, None, weights)["y"] for p in problems]
        close(moved[0], moved[1], 1e-9, op)
        back = [p.derivatives.pull(p.feeds, None, {"y": moved[0]})["w"] for p in problems]
        close(back[0], back[1], 1e-9, op)
