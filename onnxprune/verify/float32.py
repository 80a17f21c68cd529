"""What single precision may change: an a-priori bound on the rounding error of every value, for any order of sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.adjoints import step
from onnxprune.verify.affine import channel_bounds
from onnxprune.verify.certificate import Claims
from onnxprune.verify.forward import Given
from onnxprune.verify.meanings import STEADY, meaning
from onnxprune.verify.network import Network, Node
from onnxprune.verify.numbers import Interval, gamma

Floats = NDArray[np.float64]
UNIT = 2.0**-24
SMALLEST = 2.0**-126
KERNEL = 8
"""Units in the last place that the kernel of a function may err by."""
MOST = 3e9
"""Multiply-adds beyond which nothing is computed."""


@dataclass(frozen=True)
class Robustness:
    """How many removals hold in single precision, too.

    Attributes:
        robust: Units whose margin is larger than the largest error of their pre-activation.
        units: Units removed or merged because of a state.
        outputs: By output a bound on the rounding error of the original; infinite where there is none.
        difference: By output how far single-precision runs of the two models can be apart.
    """

    robust: int
    units: int
    outputs: Mapping[str, float]
    difference: Mapping[str, float]


def errors(net: Network, bounds: Mapping[str, Interval]) -> dict[str, Floats]:
    """Bounds on the error of every tensor of one sample; missing where nothing bounds it.

    Sums may be added in any order, with or without fused operations, but by their terms (Higham 2002, section 3.1).
    """
    found: dict[str, Floats] = {name: np.zeros(net.sample(name) or ()) for name in net.inputs}
    if _work(net) > MOST:
        return {}
    for node in net.nodes:
        result = _error(net, bounds, node, found)
        if result is not None and node.outputs[0]:
            found[node.outputs[0]] = result
    return found


def _work(net: Network) -> float:
    total = 0.0
    for node in net.nodes:
        weights = [net.constants[n] for n in node.inputs[1:2] if n in net.constants]
        shape = net.sample(node.outputs[0])
        if weights and shape is not None:
            places = np.prod(shape[2:]) if node.op == "Conv" else 1.0
            total += float(weights[0].size) * float(places)
    return total


def _error(net: Network, bounds: Mapping[str, Interval], node: Node, found: Mapping[str, Floats]) -> Floats | None:
    given = Given(node, net, bounds, False)
    known = step(given)
    if known is not None:
        return _affine(net, bounds, node, found)
    names = [name for name in node.inputs if name and name not in net.constants]
    if not names or any(name not in found for name in names) or len([n for n in node.outputs if n]) != 1:
        return None
    told, shape = meaning(given), net.sample(node.outputs[0])
    if shape is None:
        return None
    worst = max(float(found[name].max(initial=0.0)) for name in names)
    if told is not None and told.straight is not None and node.op in ("Relu", "Clip", "LeakyRelu", "PRelu"):
        scale = 0.0 if node.op in ("Relu", "Clip") else UNIT
        return found[names[0]] * told.lipschitz + scale * _size(bounds, names[0], shape)
    if told is not None or node.op in STEADY:
        factor = told.lipschitz if told is not None else 1.0
        if not np.isfinite(factor):
            return None
        terms = _averaged(net, node)
        reach = float(np.max(_size(bounds, names[0], None))) if terms else 0.0
        output = _size(bounds, node.outputs[0], None)
        kernel = 0.0 if node.op in STEADY and node.op not in ("Softmax",) else KERNEL * UNIT * float(np.max(output))
        return np.full(shape, worst * factor + gamma(terms, UNIT) * (reach + worst) * bool(terms) + kernel)
    return None


def _averaged(net: Network, node: Node) -> int:
    """Terms of the sums that a mean takes."""
    if node.op == "AveragePool":
        return int(np.prod([int(k) for k in node.get("kernel_shape", [1])]))
    if node.op in ("GlobalAveragePool", "ReduceMean"):
        return int(np.prod(net.sample(node.inputs[0]) or (1,)))
    return 0


def _size(bounds: Mapping[str, Interval], name: str, shape: tuple[int, ...] | None) -> Floats:
    low, high = bounds[name].floats()
    size = np.maximum(np.abs(low), np.abs(high))
    return size if shape is None else np.broadcast_to(size, shape)


def _affine(net: Network, bounds: Mapping[str, Interval], node: Node, found: Mapping[str, Floats]) -> Floats | None:
    known = step(Given(node, net, bounds, False))
    if known is None or any(node.inputs[index] not in found for index in known.back):
        return None
    names = {index: node.inputs[index] for index in known.back}
    shapes = {index: net.sample(name) for index, name in names.items()}
    if any(shape is None for shape in shapes.values()):
        return None
    wrong = {index: np.broadcast_to(found[name], shapes[index] or ()) for index, name in names.items()}
    right = {index: _size(bounds, name, shapes[index]) for index, name in names.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        nothing = known.size({index: np.zeros(shapes[index] or ()) for index in names})
        share = gamma(known.forward, UNIT) if known.forward else 0.0
        # What is carried along, and a share of what sums are made of: one walk for both, as sizes are linear but for
        # what constants add, which is carried by no input.
        mixed = {index: wrong[index] * (1 + share) + share * right[index] for index in names}
        total = (known.size(mixed) - (1 - share) * nothing) * (1 + 1e-9)
        total = np.where(total <= 0, 0.0, total + known.forward * SMALLEST)
    return np.asarray(np.where(np.isnan(total), np.inf, total), dtype=np.float64)


Known = tuple[Network, Mapping[str, Interval]]


def robustness(before: Known, after: Known, claims: Sequence[Claims], off: Mapping[str, float]) -> Robustness | None:
    """Compare the margins of claims with the errors of their pre-activations, and the outputs with each other.

    Args:
        before: The original, and bounds on its tensors.
        after: The optimized model, and bounds on its.
        claims: States of units, with margins.
        off: By output how far the models are apart in real arithmetic.

    Returns:
        What was found; None where nothing rests on a state and the models compute the same, as there is nothing to ask.
    """
    if not claims and not any(off.values()):
        return None
    found, other = errors(*before), errors(*after)
    net = before[0]
    good = units = 0
    for claim in claims:
        if claim.state not in ("inactive", "active"):
            continue
        units += len(claim.units)
        error = found.get(claim.tensor)
        shape = net.sample(claim.tensor)
        if error is None or shape is None:
            continue
        axis = min(1, len(shape) - 1)
        rows = channel_bounds(Interval.of(error, error), axis, shape[axis]).floats()[1]
        good += int((claim.margins >= rows[claim.units]).sum())
    outputs = {name: _worst(found, name) for name in net.outputs}
    apart = {name: (outputs[name] + _worst(other, name) + off[name]) * (1 + 1e-9) for name in net.outputs}
    return Robustness(good, units, outputs, apart)


def _worst(found: Mapping[str, Floats], name: str) -> float:
    return float(found[name].max(initial=0.0)) if name in found else np.inf
