from __future__ import annotations

import numpy as np
import pytest

from onnxprune.graph.graph import Graph
from onnxprune.surgeon.differentiation import Derivatives
from tests.surgeon.differentiation.support import Problem, Tensor, check, model, samples

WIDTH, HEADS, WORDS = 8, 2, 5
GELU = {
    "node": "g = Gelu(u)",
    "sub-graph": "g1 = Div(u, root)\n g2 = Erf(g1)\n g3 = Add(g2, one)\n g4 = Mul(u, g3)\n g = Mul(g4, half)",
}
ATTENTION = """
    n = LayerNormalization<axis=-1>(x, ln1, lb1)
    p = MatMul(n, qkv)
    pb = Add(p, qkvb)
    q, k, v = Split<axis=2, num_outputs=3>(pb)
    qs = Reshape(q, heads)
    ks = Reshape(k, heads)
    vs = Reshape(v, heads)
    qt = Transpose<perm=[0,2,1,3]>(qs)
    kt = Transpose<perm=[0,2,3,1]>(ks)
    vt = Transpose<perm=[0,2,1,3]>(vs)
    s = MatMul(qt, kt)
    d = Mul(s, scale)
    m = Where(mask, d, low)
    a = Softmax<axis=-1>(m)
    c = MatMul(a, vt)
    ct = Transpose<perm=[0,2,1,3]>(c)
    cr = Reshape(ct, flat)
    o = MatMul(cr, out)
    r = Add(x, o)
    n2 = LayerNormalization<axis=-1>(r, ln2, lb2)
    h = MatMul(n2, up)
    u = Add(h, upb)
    GELU
    e = MatMul(g, down)
    y = Add(r, e)
"""


def transformer(kind: str, batch: str) -> Problem:
    rng = np.random.default_rng(60)
    shapes: dict[str, tuple[int, ...]] = {
        "ln1": (WIDTH,),
        "lb1": (WIDTH,),
        "qkv": (WIDTH, 3 * WIDTH),
        "qkvb": (3 * WIDTH,),
        "out": (WIDTH, WIDTH),
        "ln2": (WIDTH,),
        "lb2": (WIDTH,),
        "up": (WIDTH, 2 * WIDTH),
        "upb": (2 * WIDTH,),
        "down": (2 * WIDTH, WIDTH),
    }
    weights = {name: rng.normal(size=shape) * (0.5 if len(shape) == 2 else 1.0) for name, shape in shapes.items()}
    mask = ", ".join("1" if j <= i else "0" for i in range(WORDS) for j in range(WORDS))
    constants = f"""
        int64[4] heads = {{0, {WORDS}, {HEADS}, {WIDTH // HEADS}}}, int64[3] flat = {{0, {WORDS}, {WIDTH}}},
        float scale = {{0.5}}, float low = {{-1e9}}, bool[{WORDS},{WORDS}] mask = {{{mask}}},
        float root = {{1.4142135}}, float one = {{1}}, float half = {{0.5}}"""
    body = ATTENTION.replace("GELU", GELU[kind])
    found = model(body, f"float[{batch},{WORDS},{WIDTH}] x", weights, constants=constants)
    return Problem(found, list(weights), ["y", "a"], samples(found, rng), np.float32)


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("kind", GELU)
def test_a_transformer_block(kind: str, batch: str) -> None:
    check(transformer(kind, batch))


@pytest.mark.parametrize("batch", ["N", "1"])
def test_a_residual_network(batch: str) -> None:
    rng = np.random.default_rng(61)
    weights: dict[str, Tensor] = {
        "w1": rng.normal(size=(4, 2, 3, 3)),
        "w2": rng.normal(size=(4, 1, 3, 3)),
        "w3": rng.normal(size=(6, 4, 3, 3)) * 0.5,
        "w4": rng.normal(size=(6, 4, 1, 1)),
        "w5": rng.normal(size=(6, 6, 3, 3)) * 0.3,
        "fc": rng.normal(size=(3, 6)),
        "fcb": rng.normal(size=3),
        **{name: rng.normal(size=4) for name in ("g", "s", "m")},
        "v": rng.random(4) + 0.5,
    }
    body = """
        a = Conv<pads=[1,1,1,1]>(x, w1)
        b = BatchNormalization(a, g, s, m, v)
        r = Relu(b)
        d = Conv<pads=[1,1,1,1], group=4>(r, w2)
        e = Add(d, r)
        f = Relu(e)
        h = Conv<pads=[1,1,1,1], strides=[2,2]>(f, w3)
        k = Conv<strides=[2,2]>(f, w4)
        i = Add(h, k)
        l = Relu(i)
        n = Conv<pads=[2,2,2,2], dilations=[2,2]>(l, w5)
        o = Add(n, l)
        p = GlobalAveragePool(o)
        q = Flatten(p)
        y = Gemm<transB=1>(q, fc, fcb)
    """
    found = model(body, f"float[{batch},2,7,6] x", weights)
    check(Problem(found, [n for n in weights if n != "v"], ["y", "i"], samples(found, rng), np.float32))


def test_attention_over_words_from_a_table() -> None:
    """The words are looked up: the table is refused, everything behind it works."""
    rng = np.random.default_rng(62)
    weights = {"table": rng.normal(size=(2, 4)), "w": rng.normal(size=(4, 4)), "p": rng.normal(size=(3, 4))}
    body = """
        e = Gather<axis=0>(table, x)
        a = Add(e, p)
        q = MatMul(a, w)
        t = Transpose<perm=[0,2,1]>(a)
        s = MatMul(q, t)
        y = Softmax(s)
    """
    found = model(body, "int64[N,3] x", weights)
    check(Problem(found, ["w", "p"], ["y"], samples(found, rng)), tolerance=1e-6)
    assert "Gather" in Derivatives(Graph(found), ["table"], ["y"]).refused["table"]


def test_shapes_that_are_computed_from_the_batch() -> None:
    """Reshape and Expand to sizes that a chain of Shape nodes computes, as exporters write them."""
    rng = np.random.default_rng(63)
    body = """
        s = Shape(x)
        n = Gather<axis=0>(s, zero)
        k = Unsqueeze(n, axes)
        t = Concat<axis=0>(k, rest)
        a = MatMul(x, w)
        b = Reshape(a, t)
        c = Concat<axis=0>(k, tail)
        f = ConstantOfShape<value = float[1] {2.0}>(c)
        d = Mul(b, f)
        e = Expand(v, c)
        y = Sub(d, e)
    """
    constants = "int64 zero = {0}, int64[1] axes = {0}, int64[2] rest = {3, 2}, int64[2] tail = {3, 1}"
    found = model(
        body, "float[N,4] x", {"w": rng.normal(size=(4, 6)), "v": rng.normal(size=(1, 3, 1))}, constants=constants
    )
    check(Problem(found, ["w", "v"], ["y"], samples(found, rng)), tolerance=1e-6)


def test_many_samples_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.surgeon.differentiation.execution.HELD", 100)
    rng = np.random.default_rng(64)
    found = model(
        "a = MatMul(x, w)\n r = Tanh(a)\n y = MatMul(r, v)",
        "float[N,4] x",
        {"w": rng.normal(size=(4, 6)), "v": rng.normal(size=(6, 2))},
    )
    check(Problem(found, ["w", "v"], ["y"], samples(found, rng, 23)), tolerance=1e-6)
