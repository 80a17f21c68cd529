"""``drop_idle_activation``: activations whose input stays where they are the identity."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import ModelProto

from tests.passes.support import Done, net, run_pass, unchanged

NAME = "drop_idle_activation"


def chain(body: str, *, opset: int = 17, **options: Any) -> ModelProto:
    options = {"inputs": "float[N,2] x", "outputs": "float[N,2] y", "slopes": [1, 1], **options}
    return net(body, opset=opset, **options)


def dropped(done: Done) -> int:
    return sum(count for kind, count in done.report.changes.items() if kind.startswith("idle "))


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("s = Sigmoid (x) r = Relu (s) y = Neg (r)", 1),
        ("s = Softmax (x) r = Relu (s) y = Neg (r)", 1),
        ("s = Relu (x) r = Relu (s) y = Neg (r)", 1),
        ("s = Relu (x) r = Relu (s) t = Relu (r) y = Neg (t)", 2),
        ("s = Exp (x) r = Abs (s) y = Neg (r)", 1),
        ("s = Abs (x) r = LeakyRelu (s) y = Neg (r)", 1),
        ("s = Abs (x) r = Elu (s) y = Neg (r)", 1),
        ("s = Abs (x) r = PRelu (s, slopes) y = Neg (r)", 1),
        ("r = PRelu (x, slopes) y = Neg (r)", 1),
        ("r = LeakyRelu <alpha = 1.0> (x) y = Neg (r)", 1),
        ("s = Sigmoid (x) r = Clip (s, zero, one) y = Neg (r)", 1),
        ("s = Sigmoid (x) r = Clip (s, zero) y = Neg (r)", 1),
        ("r = Clip (x) y = Neg (r)", 1),
        ("t = Abs (x) s = Add (t, three) r = HardSwish (s) y = Neg (r)", 1),
        ("s = Sigmoid (x) r = Relu (s) p = Neg (r) q = Exp (r) y = Add (p, q)", 1),
        ("s = Tanh (x) r = Relu (s) y = Neg (r)", 0),
        ("s = Sigmoid (x) r = Clip (s, zero, half) y = Neg (r)", 0),
        ("s = Sigmoid (x) r = Clip (s, zero, limit) y = Neg (r)", 0),
        ("s = Sigmoid (x) r = Clip (s, one, zero) y = Neg (r)", 0),
        ("s = Sigmoid (x) r = HardSwish (s) y = Neg (r)", 0),
        ("r = Relu (x) y = Neg (r)", 0),
    ],
)
def test_without_a_domain(body: str, count: int) -> None:
    model = chain(body, inputs="float[N,2] x, float limit")
    done = run_pass(NAME, model, tolerance=1e-6)
    assert dropped(done) == count
    assert len(done.ops) == len(model.graph.node) - count
    assert not done.report.needed_domain
    assert done.deviation == done.report.rounding == 0
    assert not run_pass(NAME, done.model, tolerance=1e-6).report.modified


@pytest.mark.parametrize(
    ("body", "domain", "idle"),
    [
        ("r = Relu (x) y = Neg (r)", "0:1", True),
        ("r = Relu (x) y = Neg (r)", "-1:1", False),
        ("r = Clip (x, zero, six) y = Neg (r)", "0:6", True),
        ("r = Clip (x, zero, six) y = Neg (r)", "0:6.1", False),
        ("r = Clip (x, zero, six) y = Neg (r)", "-0.1:6", False),
        ("r = HardSwish (x) y = Neg (r)", "3:9", True),
        ("r = HardSwish (x) y = Neg (r)", "2.9:9", False),
        ("t = Add (x, three) r = Relu (t) y = Neg (r)", "-2:2", True),
    ],
)
def test_on_a_domain(body: str, domain: str, idle: bool) -> None:
    done = run_pass(NAME, chain(body), domain)
    assert (dropped(done), done.report.needed_domain) == (int(idle), idle)
    unchanged(NAME, chain(body))


def test_one_change_of_two_needs_the_domain() -> None:
    done = run_pass(NAME, chain("s = Exp (x) r = Relu (s) t = Relu (x) y = Add (r, t)"), "0:1")
    assert (dropped(done), done.report.needed_domain) == (2, True)


@pytest.mark.parametrize("opset", [7, 10])
def test_clip_with_attributes(opset: int) -> None:
    body = "s = Sigmoid (x) r = Clip <min = 0.0, max = {}> (s) y = Neg (r)"
    assert dropped(run_pass(NAME, chain(body.format(1.0), opset=opset))) == 1
    unchanged(NAME, chain(body.format(0.5), opset=opset))


@pytest.mark.parametrize(
    ("attributes", "idle"),
    [
        ("kernel_shape = [1, 1]", True),
        ("kernel_shape = [1, 1], strides = [1, 1], pads = [0, 0, 0, 0]", True),
        ('kernel_shape = [1, 1], auto_pad = "SAME_UPPER"', True),
        ("kernel_shape = [1, 1], strides = [2, 2]", False),
        ("kernel_shape = [1, 2]", False),
        ('kernel_shape = [2, 2], auto_pad = "SAME_UPPER"', False),
    ],
)
def test_max_pool(attributes: str, idle: bool) -> None:
    model = chain(
        f"s = Neg (x) p = MaxPool <{attributes}> (s) y = Neg (p)", inputs="float[N,2,H,W] x", outputs="float[N,2,a,b] y"
    )
    assert dropped(run_pass(NAME, model)) == int(idle)


def test_max_pool_with_positions_stays() -> None:
    model = chain(
        "s = Neg (x) y, i = MaxPool <kernel_shape = [1, 1]> (s)",
        inputs="float[N,2,H,W] x", outputs="float[N,2,H,W] y, int64[N,2,H,W] i",
    )  # fmt: skip
    unchanged(NAME, model)


def test_an_operator_of_another_domain_is_not_meant() -> None:
    functions = '<domain: "local", opset_import: ["": 17]> MaxPool <kernel_shape> (a) => (b) { b = Add (a, a) }'
    unchanged(NAME, chain("s = Neg (x) p = local.MaxPool <kernel_shape = [1, 1]> (s) y = Neg (p)", functions=functions))


def test_an_output_keeps_its_name() -> None:
    done = run_pass(NAME, chain("s = Sigmoid (x) y = Relu (s)"))
    assert done.ops == ["Sigmoid"]
    assert list(done.node("y").input) == ["x"]


def test_an_output_that_other_nodes_read() -> None:
    done = run_pass(NAME, chain("s = Sigmoid (x) y = Relu (s) z = Neg (s)", outputs="float[N,2] y, float[N,2] z"))
    assert done.ops == ["Sigmoid", "Neg"]
    assert list(done.node("z").input) == ["y"]


@pytest.mark.parametrize(
    ("body", "outputs", "domain"),
    [
        ("y = Relu (x)", "float[N,2] y", "0:1"),
        ("s = Sigmoid (x) y = Relu (s)", "float[N,2] y, float[N,2] s", None),
        ("r = Relu (x) y = Identity (x)", "float[N,2] y, float[N,2] r", "0:1"),
    ],
)
def test_names_that_forbid_it(body: str, outputs: str, domain: str | None) -> None:
    unchanged(NAME, chain(body, outputs=outputs), domain)


@pytest.mark.parametrize(("read", "idle"), [("r", False), ("t", True)])
def test_what_a_sub_graph_reads_keeps_its_name(read: str, idle: bool) -> None:
    model = chain(
        f"""t = Neg (x) s = Sigmoid (t) r = Relu (s)
        y = If (flag) <then_branch = yes () => (float[N,2] p) {{ p = Neg ({read}) }},
                       else_branch = no () => (float[N,2] q) {{ q = Abs ({read}) }}>
        z = Neg (r)""",
        inputs="float[N,2] x, bool flag", outputs="float[N,2] y, float[N,2] z",
    )  # fmt: skip
    assert dropped(run_pass(NAME, model)) == int(idle)
