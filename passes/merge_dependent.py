"""Merge stably active units: as many stay as the product of the weights around them has rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds import Bounds
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.groups import Units
from onnxprune.graph.rewrite import Rewrite, shift_bias
from onnxprune.operators import Interval, op_of
from onnxprune.operators.affine import affine_interval
from onnxprune.operators.interval import Array
from onnxprune.operators.linear import LinearLayer, linear_layer
from onnxprune.pass_api import Exactness, PassReport
from onnxprune.removal import execute

NEGLIGIBLE = 1e-10
"""Singular values below this share of the largest one are dropped; what that changes is part of the deviation."""
PRECISE = 1e-5
"""Largest deviation accepted, output by output, as a share of what the merged units can contribute to it."""
DENSE = ("Gemm", "MatMul")


@dataclass(frozen=True)
class MergeDependent:
    """Replace stably active ReLU units by fewer ones with the same effect on the layers behind.

    With Q the stably active units, the layers behind see ``M x`` with ``M = W_next[:, Q] W[Q]``. A factorisation
    ``M = C V`` of rank r needs only r units ``V x + c``, with c so large that they stay active on the domain. The
    deviation ``|C V - M|`` times the size of the inputs is proved and reported. Compare Serra et al. 2021, who
    keep rank W[Q] units; the product's rank is never larger.
    """

    name: ClassVar[str] = "merge_dependent"
    exactness: ClassVar[Exactness] = Exactness.ON_DOMAIN
    order: ClassVar[int | None] = 60

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Merge in the last layer where it pays: the layers in front of it then see fewer readers."""
        for hidden in reversed(list(_hidden_layers(graph, facts))):
            merged = _merge(hidden, facts.bounds)
            if merged is not None:
                return _apply(graph, facts, hidden, merged)
        return PassReport()


@dataclass(frozen=True)
class _Hidden:
    """A dense layer, its ReLU, and the dense layers that alone read it."""

    units: Units
    layer: LinearLayer
    readers: tuple[LinearLayer, ...]
    active: NDArray[np.int64]
    """Stably active units, the ones to merge: protected ones first."""
    protected: int
    """How many of them must not be removed."""


@dataclass(frozen=True)
class _Merged:
    active: NDArray[np.int64]
    """The units that are merged; the new ones take the places of the first."""
    rows: Array
    """V, shape (r, in), as rounded to the type of the model."""
    offset: Array
    """c, shape (r,)."""
    columns: tuple[Array, ...]
    """C, shape (out, r), per reader."""
    deviations: tuple[float, ...]
    """Per reader."""


def _hidden_layers(graph: Graph, facts: Facts) -> Iterator[_Hidden]:
    for units in facts.groups.units:
        layer = linear_layer(graph.view(units.node))
        if layer is None or layer.bias is None or op_of(units.node) not in DENSE or facts.held[units.components].all():
            continue
        readers = _readers(graph, units.node)
        before, axis = layer.writes
        low, _ = facts.bounds.channel(before, axis, layer.n_out)
        active = np.flatnonzero((low >= 0) & facts.groups.removable[units.components])
        held = facts.held[units.components[active]]
        if readers and len(active) > 1:
            ordered = np.concatenate([active[held], active[~held]])
            yield _Hidden(units, layer, readers, ordered, int(held.sum()))


def _readers(graph: Graph, node: gs.Node) -> tuple[LinearLayer, ...]:
    """The dense layers behind the ReLU of a layer; empty when anything else reads it."""
    after = _only_reader(graph, node.outputs[0])
    if after is None or op_of(after) != "Relu":
        return ()
    output = after.outputs[0]
    found = [linear_layer(graph.view(reader)) for reader in output.outputs]
    hidden = output.name not in graph.output_names and output.name not in graph.captured
    good = [r for r in found if r is not None and r.bias is not None and op_of(r.node) in DENSE]
    fed = all(reader.inputs[0] is output for reader in output.outputs)
    return tuple(good) if hidden and fed and len(good) == len(found) else ()


def _only_reader(graph: Graph, tensor: gs.Tensor) -> gs.Node | None:
    free = tensor.name not in graph.output_names and tensor.name not in graph.captured
    return tensor.outputs[0] if free and len(tensor.outputs) == 1 else None


def _merge(hidden: _Hidden, bounds: Bounds) -> _Merged | None:
    """The factorisation, or None where it keeps as many units or cannot be bounded."""
    layer = hidden.layer
    name, axis = layer.reads
    low, high = bounds.channel(name, axis, layer.n_in)
    size = np.maximum(np.abs(low), np.abs(high))
    dtype = np.asarray(layer.node.inputs[1].values).dtype
    if not np.isfinite(size).all() or size.max(initial=0.0) > np.finfo(np.float32).max / 2:
        return None
    rank = _rank(hidden, hidden.active, size)[0]
    spared = max(0, hidden.protected - rank)  # protected units beyond the places of the new ones stay as they are
    active = hidden.active[spared:]
    rank, directions = _rank(hidden, active, size)
    if rank >= len(active):
        return None
    rows = layer.weights[active, :, 0]
    behind = [reader.weights[:, active, 0] for reader in hidden.readers]
    basis = _as_stored(directions, layer)
    inputs = Interval.of(low[None, :], high[None, :])
    reach = affine_interval(basis, np.abs(basis), layer.n_in, inputs, Interval.point(np.zeros(rank)))
    offset = _rounded_up(np.maximum(-reach.lower.reshape(-1), 0.0), dtype)
    columns, deviations = [], []
    for reader, weights in zip(hidden.readers, behind, strict=True):
        exact = np.linalg.lstsq(basis.T, (weights @ rows).T, rcond=None)[0].T
        column = _as_stored(np.asarray(exact, np.float64), reader)
        gap = np.abs(column @ basis - weights @ rows)
        rounding = 1e-12 * (np.abs(column) @ np.abs(basis) + np.abs(weights) @ np.abs(rows))
        columns.append(column)
        moved = (gap + rounding) @ size
        if (moved > PRECISE * (np.abs(weights @ rows) @ size)).any():
            return None
        deviations.append(float(moved.max()))
    return _Merged(active, basis, offset, tuple(columns), tuple(deviations))


def _rank(hidden: _Hidden, active: NDArray[np.int64], size: Array) -> tuple[int, Array]:
    """Rank of what the readers see of some units, and as many orthonormal directions of the inputs.

    Every output counts alike, however small it is beside others: rows are scaled to what they can become.
    """
    behind = np.concatenate([reader.weights[:, active, 0] for reader in hidden.readers])
    product = behind @ hidden.layer.weights[active, :, 0]
    reach = np.abs(product) @ size
    scaled = product[reach > 0] / reach[reach > 0, None]
    if not len(scaled):
        return 1, np.eye(1, product.shape[1])
    _, values, directions = np.linalg.svd(scaled, full_matrices=False)
    rank = min(max(1, int((values > NEGLIGIBLE * values.max(initial=0.0)).sum())), len(active))
    return rank, np.asarray(directions[:rank], dtype=np.float64)


def _rounded_up(values: Array, dtype: np.dtype[np.float32]) -> Array:
    rounded = values.astype(dtype)
    rounded = np.where(rounded.astype(np.float64) < values, np.nextafter(rounded, np.asarray(np.inf, dtype)), rounded)
    return np.asarray(rounded, dtype=np.float64)


def _apply(graph: Graph, facts: Facts, hidden: _Hidden, merged: _Merged) -> PassReport:
    """Remove all but r of the active units and make those r the new ones."""
    layer, active = hidden.layer, merged.active
    places, rest = active[: len(merged.rows)], active[len(merged.rows) :]
    bias = layer.bias if layer.bias is not None else np.zeros(layer.n_out)
    deviations = {r.writes[0]: d for r, d in zip(hidden.readers, merged.deviations, strict=True) if d}
    anywhere, _ = facts.bounds_anywhere.channel(*layer.writes, layer.n_out)
    remove = {int(c) for c in hidden.units.components[rest]}
    report = execute(graph, facts, Rewrite(remove=remove), deviations)
    kept = np.delete(np.arange(layer.n_out), rest)
    now = np.searchsorted(kept, places)
    _write(graph, layer, layer.weight_out, now, merged.rows)
    shift = np.zeros(layer.n_out)
    shift[places] = merged.offset - bias[places]
    report.rounding = max(report.rounding, shift_bias(graph, layer, shift, kept))
    for reader, columns in zip(hidden.readers, merged.columns, strict=True):
        _write(graph, reader, reader.weight_in, now, columns.T)
        moved = reader.weights[:, active, 0] @ bias[active] - columns @ merged.offset
        report.rounding = max(report.rounding, shift_bias(graph, reader, moved))
    report.merged = {label(layer.node): len(rest)}
    report.needed_domain = bool((anywhere[active] < 0).any())
    return report


def _alpha(layer: LinearLayer) -> float:
    return float(layer.node.attrs.get("alpha", 1.0)) if op_of(layer.node) == "Gemm" else 1.0


def _as_stored(values: Array, layer: LinearLayer) -> Array:
    """Weights as the layer will have them after rounding to its element type."""
    dtype = np.asarray(layer.node.inputs[1].values).dtype
    return (values / _alpha(layer)).astype(dtype).astype(np.float64) * _alpha(layer)


def _write(graph: Graph, layer: LinearLayer, axis: int | None, places: NDArray[np.int64], values: Array) -> None:
    """Overwrite rows (or columns) of a weight matrix."""
    weights = graph.own(layer.node, 1)
    raw = np.array(weights.values)
    np.moveaxis(raw, axis or 0, 0)[places] = (values / _alpha(layer)).astype(raw.dtype)
    graph.set_values(weights, raw)
