"""Two models without a certificate: runs that show a difference, and a proof that bounds it where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.certificate.searching import Search
from onnxprune.domain import Domain, InputSpec
from onnxprune.errors import InputError
from onnxprune.runtime import Runner
from onnxprune.samples import input_specs, working_shapes
from onnxprune.verify.backward import Backward, adaptive
from onnxprune.verify.checker import check_signatures
from onnxprune.verify.forward import Forward
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.sides import Side

Floats = NDArray[np.float64]
Feeds = dict[str, NDArray[Any]]
SAMPLES, CORNERS, STARTS, STEPS = 32, 16, 4, 12
TOLERANCE = 1e-3
"""Share of the range of the outputs that two float32 runs of equal models may be apart by."""
HUGE = 1e30


@dataclass
class Comparison:
    """What is known of the difference of two models.

    Attributes:
        seen: By output the largest difference of two runs.
        scale: By output the largest absolute value that was seen.
        proved: By output a bound on the difference in real arithmetic; infinite where there is none.
        how: What proved it.
        runs: Inputs that were run.
        why_not: Why one model is not shown to be the other one, rewritten.
    """

    seen: dict[str, float] = field(default_factory=dict)
    scale: dict[str, float] = field(default_factory=dict)
    proved: dict[str, float] = field(default_factory=dict)
    how: str = ""
    runs: int = 0
    why_not: str = ""

    @property
    def alike(self) -> bool:
        """Whether no run showed more than rounding."""
        return all(gap <= TOLERANCE * max(self.scale[name], 1e-30) for name, gap in self.seen.items())

    def content(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "alike": self.alike,
            "runs": self.runs,
            "difference": self.seen,
            "scale": self.scale,
            "bound": {name: value if value < HUGE else None for name, value in self.proved.items()},
            "proved_by": self.how,
            "why_not": self.why_not,
        }

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        for name, gap in self.seen.items():
            yield f"{name}: largest difference seen {gap:.3g} (values up to {self.scale[name]:.3g}; {self.runs} runs)"
            bound = self.proved.get(name, np.inf)
            if bound < HUGE:
                yield f"{name}: proved in real arithmetic: at most {bound:.3g}, by {self.how}"
            else:
                yield f"{name}: no bound on the difference was proved"
        if self.why_not:
            yield f"not shown to be the same model, rewritten: {self.why_not}"
        yield "ALIKE: no run shows more than rounding" if self.alike else "DIFFERENT: a run shows more than rounding"


def compare(one: onnx.ModelProto, other: onnx.ModelProto, domain: Domain, *, seed: int = 0) -> Comparison:
    """Compare two models on a domain.

    Args:
        one: A model.
        other: Another one with the same inputs and outputs.
        domain: Where the inputs lie.
        seed: Of random inputs.

    Raises:
        InputError: The models cannot be fed or read alike.
        EnvironmentFailure: ONNX Runtime cannot run one of them.
    """
    try:
        check_signatures(one, other)
    except Rejected as error:
        raise InputError(
            f"The models cannot be compared: {error.what}.", hint="Both need the same signature."
        ) from None
    specs = input_specs(one)
    runners = Runner(one), Runner(other)
    rng = np.random.default_rng(seed)
    net = Network.of(one)
    single = {spec.name: shape for spec in specs if (shape := net.sample(spec.name)) is not None}
    shapes = working_shapes(runners[0], specs, domain, single, rng)
    found = Comparison()
    _prove(found, one, other, domain, specs)
    for feeds in _inputs(domain, specs, shapes, rng):
        _run(found, one, runners, feeds)
    for feeds in _climbed(found, one, other, domain, specs, shapes, rng):
        _run(found, one, runners, feeds)
    return found


def _inputs(
    domain: Domain, specs: list[InputSpec], shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator
) -> Iterator[Feeds]:
    for _ in range(SAMPLES):
        yield domain.sample(specs, shapes, rng)
    for _ in range(CORNERS):
        yield domain.sample(specs, shapes, rng, "corner")
    yield domain.sample(specs, shapes, rng, "center")


def _run(found: Comparison, model: onnx.ModelProto, runners: tuple[Runner, Runner], feeds: Feeds) -> None:
    results = [runner.run(feeds) for runner in runners]
    found.runs += 1
    for value, mine, theirs in zip(model.graph.output, *results, strict=True):
        a, b = (np.asarray(v) for v in (mine, theirs))
        if a.dtype.kind not in "fiub":
            raise InputError(f"Output '{value.name}' holds no numbers.", hint="Only numbers can be compared.")
        if a.shape != b.shape:
            raise InputError(
                f"Output '{value.name}' has shapes {a.shape} and {b.shape}.", hint="They cannot be compared."
            )
        a, b = a.astype(np.float64), b.astype(np.float64)
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        gap = np.where(np.isnan(gap), np.inf, gap)
        found.seen[value.name] = max(found.seen.get(value.name, 0.0), float(gap.max(initial=0.0)))
        size = np.abs(np.where(np.isfinite(a), a, 0.0))
        found.scale[value.name] = max(found.scale.get(value.name, 0.0), float(size.max(initial=0.0)))


def _prove(
    found: Comparison, one: onnx.ModelProto, other: onnx.ModelProto, domain: Domain, specs: list[InputSpec]
) -> None:
    """A bound from a walk through both models, or from bounds on the outputs of either."""
    nets = Network.of(one), Network.of(other)
    inputs = {spec.name: Interval.of(*domain.bounds(spec)) for spec in specs}
    before, after = Forward(nets[0], inputs).run(), Forward(nets[1], inputs, finite=False).run()
    search = Search(Side(nets[0], before, False), Side(nets[1], after, False), {}, {})
    try:
        forms = search.run()
        found.proved = {name: float(form.deviation) + float(form.rounding) for name, form in forms.items()}
        found.how = "a walk through both models"
    except Rejected as error:
        found.why_not = error.what
    for name in nets[0].outputs:
        if name not in before or name not in after:
            continue
        (low, high), (least, most) = before[name].floats(), after[name].floats()
        gap = float(np.maximum(high - least, most - low).max(initial=0.0)) * (1 + 1e-9)
        if gap < found.proved.get(name, np.inf):
            found.proved[name] = gap
            found.how = found.how or "bounds on the outputs of both"


def _climbed(
    found: Comparison,
    one: onnx.ModelProto,
    other: onnx.ModelProto,
    domain: Domain,
    specs: list[InputSpec],
    shapes: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
) -> Iterator[Feeds]:
    """Inputs on the way up the difference: corners that its gradient points to, one after another."""
    nets = Network.of(one), Network.of(other)
    boxes = {spec.name: tuple(np.broadcast_to(end, shapes[spec.name]) for end in domain.bounds(spec)) for spec in specs}
    names = [value.name for value in one.graph.output]
    usable = all(np.abs(end).max(initial=0.0) < HUGE for pair in boxes.values() for end in pair)
    same = all(nets[0].sample(spec.name) == shapes[spec.name] for spec in specs)
    floats = all(nets[0].is_float(name) and nets[0].sample(name) is not None for name in (*names, *boxes))
    if not usable or not same or not floats or domain.constraints:
        return
    for _ in range(STARTS):
        feeds = domain.sample(specs, shapes, rng)
        name = str(rng.choice(names))
        size = int(np.prod(nets[0].sample(name) or ()))
        rows = np.zeros((1, size))
        rows[0, rng.integers(size)] = rng.choice([-1.0, 1.0])
        for _ in range(STEPS):
            slopes = [_gradient(net, feeds, name, rows) for net in nets]
            if any(slope is None for slope in slopes):
                return
            following = {}
            for spec in specs:
                low, high = boxes[spec.name]
                gap = (slopes[0] or {})[spec.name] - (slopes[1] or {})[spec.name]
                ends = np.where(gap.reshape(low.shape) > 0, high, low)
                following[spec.name] = _within(ends, spec, low, high)
            if all(np.array_equal(following[n], feeds[n]) for n in feeds):
                break
            feeds = following
            yield feeds


def _within(ends: Floats, spec: InputSpec, low: Floats, high: Floats) -> NDArray[Any]:
    """Ends of a box in the type of an input, inside the box."""
    near = ends.astype(spec.dtype)
    if spec.dtype.kind != "f":
        return near
    near = np.where(near.astype(np.float64) > high, np.nextafter(near, spec.dtype.type(-np.inf)), near)
    return np.where(near.astype(np.float64) < low, np.nextafter(near, spec.dtype.type(np.inf)), near)


def _gradient(net: Network, feeds: Feeds, name: str, rows: Floats) -> dict[str, Floats] | None:
    """Slope of a function of an output at a point; None where a node on the way has none here."""
    at = {n: Interval.point(values.astype(np.float64)) for n, values in feeds.items()}
    bounds = Forward(net, at).run()
    walk = Backward(net, bounds)
    walk.upper(name, rows.reshape(1, *(net.sample(name) or ())), adaptive)
    if any(n not in walk.ends for n in feeds):
        return None
    return {n: walk.ends[n][0] for n in feeds}
