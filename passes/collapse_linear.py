"""Collapse what is linear as a whole: layers whose units are all stable, and constant parts of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.bounds import Bounds
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.rewrite import shift_bias
from onnxprune.operators.interval import Array, gamma
from onnxprune.operators.linear import LinearLayer
from onnxprune.pass_api import Exactness, PassReport

from .composition import Plan, compose, plan, size
from .constant_tensor import replace_constants
from .linear_chain import PRECISE, Chain, find_chain, has_bias, replace_weights, stored


@dataclass(frozen=True)
class CollapseLinear:
    """Compose affine maps between which no activation binds; put constants for what is constant.

    Two layers become one only where that takes fewer parameters and no more multiply-adds. The composed weights
    are rounded to the element type of the model; where the inputs of the layer are bounded, what that changes is
    proved and reported as the deviation.
    """

    name: ClassVar[str] = "collapse_linear"
    exactness: ClassVar[Exactness] = Exactness.ON_DOMAIN
    order: ClassVar[int | None] = 65

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Constants first; then layers from the last to the first, whose bounds no earlier change touches."""
        report = replace_constants(graph, facts)
        if report.modified:
            return report
        held = {id(units.node) for units in facts.groups.units if facts.held[units.components].any()}
        for node in reversed(list(graph.nodes)):
            chain = find_chain(graph, node) if node.outputs and id(node) not in held else None
            if chain is None or not chain.active(facts.bounds).all():
                continue
            composed = _composed(chain, facts.bounds)
            if composed is not None:
                report.needed_domain |= not chain.active(facts.bounds_anywhere).all()
                _apply(graph, chain, composed, report)
        return report


@dataclass(frozen=True)
class _Composed:
    form: Plan
    weights: Array
    """Shape (out, in, *kernel), as stored."""
    rounding: float
    deviation: float | None
    """None where the inputs are unbounded: then the weights are only rounded."""


def _composed(chain: Chain, bounds: Bounds) -> list[_Composed] | None:
    """The layer composed with each of its readers; None where that is impossible, dearer or too inexact."""
    forms = [plan(chain.layer, reader) for reader in chain.readers]
    good = [form for form in forms if form is not None]
    if len(good) < len(forms) or not _pays(chain, good):
        return None
    low, high = bounds.channel(*chain.layer.reads, chain.layer.n_in)
    reach = np.maximum(np.abs(low), np.abs(high))
    found = [_rounded(chain.layer, reader, form, reach) for reader, form in zip(chain.readers, good, strict=True)]
    results = [composed for composed in found if composed is not None]
    return results if len(results) == len(found) else None


def _pays(chain: Chain, forms: list[Plan]) -> bool:
    """Whether fewer parameters are left, and (no reader has more outputs than the layer) no more multiply-adds."""
    layer = chain.layer
    spared = layer.weights.size + (layer.n_out if has_bias(layer) else 0)
    added, work = 0, 0
    for reader, form in zip(chain.readers, forms, strict=True):
        more = size(form, layer, reader) - reader.weights.size
        added += more + (0 if has_bias(reader) or not _moves_bias(layer) else reader.n_out)
        work += max(more, 0)
    return added < spared and work <= layer.weights.size


def _moves_bias(layer: LinearLayer) -> bool:
    return layer.bias is not None and bool(layer.bias.any())


def _rounded(layer: LinearLayer, reader: LinearLayer, form: Plan, reach: Array) -> _Composed | None:
    """The composition as it can be stored; None where its type is too coarse for it.

    Args:
        layer: The first layer.
        reader: The second.
        form: How to compose them.
        reach: Largest absolute value per input channel.
    """
    exact = compose(form, layer, reader)
    with np.errstate(over="ignore"):
        weights = stored(exact, reader)
    if not np.isfinite(weights).all():
        return None
    gap = np.abs(weights - exact)
    error = gap + gamma(layer.n_out * reader.weights.shape[2]) * compose(form, layer, reader, absolute=True)
    bounded = bool(np.isfinite(reach).all() and reach.max(initial=0.0) <= np.finfo(np.float32).max / 2)
    counted = reach if bounded else np.ones_like(reach)
    moved, whole = (np.sum(w.reshape(*w.shape[:2], -1), axis=2) @ counted for w in (error, np.abs(exact)))
    if (moved > PRECISE * whole).any():
        return None
    return _Composed(form, weights, float(gap.max(initial=0.0)), float(moved.max()) if bounded else None)


def _apply(graph: Graph, chain: Chain, composed: list[_Composed], report: PassReport) -> None:
    """Let the readers read what the layer read, and drop the layer."""
    layer = chain.layer
    source = layer.node.inputs[0]
    for reader, one in zip(chain.readers, composed, strict=True):
        edited = reader.writes[0]
        replace_weights(graph, reader, one.weights)
        _set_attributes(reader.node, one.form)
        reader.node.inputs[0] = source
        rounding = 0.0
        if layer.bias is not None and layer.bias.any():
            rounding = shift_bias(graph, reader, reader.columns() @ layer.bias)
        report.rounding = max(report.rounding, rounding, one.rounding)
        report.moved[edited] = report.moved.get(edited, 0.0) + (np.inf if one.deviation is None else rounding)
        if one.deviation:
            report.deviations[edited] = report.deviations.get(edited, 0.0) + one.deviation
    if chain.activation is not None:
        graph.detach(chain.activation)
    report.removed[label(layer.node)] = list(range(layer.n_out))
    report.changes["layers composed"] += 1
    report.modified = report.values_kept = True
    graph.detach(layer.node)


def _set_attributes(node: gs.Node, form: Plan) -> None:
    if form.attributes:
        node.attrs.pop("auto_pad", None)
        node.attrs.update(form.attributes)
