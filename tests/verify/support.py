"""Certificates of small networks, as the tests of the checker need them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx

from onnxprune import optimize
from onnxprune.certificate.writing import INLINE, content
from onnxprune.verify.certificate import Certificate, Witnesses
from onnxprune.verify.checker import Verdict, check, domain
from onnxprune.verify.evidence import Evidence
from onnxprune.verify.forward import Forward
from onnxprune.verify.network import Network
from onnxprune.verify.reading import parsed
from onnxprune.verify.steps import Constraint, Leaf, Multipliers, Step
from tests.helpers import parse
from tests.nets import random_mlp

FEATURES, HIDDEN = 3, 6
BODY = """
    a = Gemm <transB = 1> (x, w1, b1)
    r = Relu (a)
    c = Gemm <transB = 1> (r, w2, b2)
    s = Relu (c)
    y = Gemm <transB = 1> (s, w3, b3)
"""


@dataclass(frozen=True)
class Case:
    """Two models and the content of a certificate about them, all arrays in the JSON itself."""

    original: onnx.ModelProto
    optimized: onnx.ModelProto
    content: dict[str, Any]

    def check(self, changed: dict[str, Any] | None = None, *, exact: bool = False) -> Verdict:
        """Check what it says, or a changed form of that; seals apart, as whoever forges can make new ones."""
        certificate = parsed(self.content if changed is None else changed, {})
        return check(certificate, self.original, self.optimized, exact=exact)


def near_stable(seed: int) -> onnx.ModelProto:
    """A network on [-1, 1]: some units of its second layer are stable by little, so that intervals do not show it."""
    rng = np.random.default_rng(seed)
    w1, b1 = rng.normal(size=(HIDDEN, FEATURES)), rng.normal(size=HIDDEN) * 0.3
    w2 = rng.normal(size=(HIDDEN, HIDDEN))
    points = rng.uniform(-1, 1, (4000, FEATURES))
    points = np.vstack([points, np.sign(points)])
    values = np.maximum(points @ w1.T + b1, 0) @ w2.T
    room = 0.25 * np.arange(HIDDEN) / HIDDEN
    choices = [-values.max(axis=0) - room, -values.min(axis=0) + room, -np.median(values, axis=0)]
    b2 = np.choose(np.arange(HIDDEN) % 3, choices)
    weights = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w3": rng.normal(size=(2, HIDDEN)), "b3": rng.normal(size=2)}
    arrays = {name: values.astype(np.float32) for name, values in weights.items()}
    return parse(BODY, f"float[N,{FEATURES}] x", "float[N,2] y", arrays)


def case(model: onnx.ModelProto, box: str | None) -> Case:
    """What optimize makes of a model."""
    result = optimize(model, box, budget=100.0, goal="size", align=1, certificate=True, remember=False)
    assert result.certificate is not None
    return Case(model, result.model, plain(result.certificate.certificate))


def plain(certificate: Certificate) -> dict[str, Any]:
    """A certificate as JSON content without a file of arrays."""
    found, _ = content(certificate, "none.npz")
    assert found["arrays"] is None, f"an array has more than {INLINE} entries"
    return found


@cache
def split_case() -> Case:
    """One unit is inactive by a tree of sub-boxes."""
    return case(near_stable(6), "-1:1")


@cache
def parallel_case() -> Case:
    """Units without evidence beyond intervals: some inactive or constant, some multiples of others."""
    return case(random_mlp(10), "0:1")


@cache
def solver_case() -> Case:
    """The unit that :func:`split_case` removes, on the word of a solver."""
    found = split_case()
    before = parsed(found.content, {})
    steps = tuple(replace(step, trust="solver", cuts=None) if step.cuts is not None else step for step in before.steps)
    claims = tuple(
        replace(claim, method="mip", trust="solver") if claim.method == "split" else claim for claim in before.claims
    )
    return Case(found.original, found.optimized, plain(replace(before, steps=steps, claims=claims)))


@cache
def handed_on_case() -> Case:
    """Most units are stably active: they are merged, and what is left of them passes the activation unchanged."""
    rng = np.random.default_rng(3)
    weights = {"w1": rng.normal(size=(8, 2)), "b1": np.where(np.arange(8) < 6, 9.0, 0.1), "w2": rng.normal(size=(2, 8))}
    arrays = {name: values.astype(np.float32) for name, values in weights.items()}
    body = "a = Gemm <transB = 1> (x, w1, b1) r = Relu (a) y = Gemm <transB = 1> (r, w2)"
    return case(parse(body, "float[N,2] x", "float[N,2] y", arrays), "-1:1")


@cache
def proved_by_cases() -> Case:
    """The unit that :func:`split_case` removes, by cases with multipliers and a constraint of the domain."""
    found = split_case()
    before = parsed(found.content, {})
    units = np.arange(HIDDEN)
    leaves = tuple(
        Leaf(
            (("a", 0, first), ("a", 1, second)),
            Multipliers({"a": units}, {"a": np.full((1, HIDDEN), 0.4 + 0.1 * first)}, np.array([[0.01]])),
        )
        for first in (True, False)
        for second in (True, False)
    )
    (gone,) = (int(claim.units[0]) for claim in before.claims if claim.state == "inactive")
    step = Step("c", True, np.array([gone]), np.array([1e6]), "certified", "adaptive", leaves)
    constraint = Constraint((("x", 0, 1.0), ("x", 1, 1.0)), 1.75)
    certificate = replace(before, constraints=(constraint,), steps=(*before.steps, tightened(before, step, constraint)))
    claims = tuple(replace(claim, method="mip") if claim.state == "inactive" else claim for claim in before.claims)
    certificate = replace(certificate, witnesses=Witnesses(), claims=claims)
    return Case(found.original, found.optimized, plain(certificate))


def tightened(certificate: Certificate, step: Step, constraint: Constraint) -> Step:
    """A step with the bounds that its evidence proves."""
    net = Network.of(split_case().original)
    inputs = domain(certificate, net, exact=False)
    evidence = Evidence(net, inputs, (*certificate.steps, step), (constraint,), strict=False)
    Forward(net, inputs, False, True, evidence.refine).run()
    return replace(step, bounds=evidence.proved[id(step)])
