"""Merge stably active units: as many stay as the weights around them have rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds import Bounds
from onnxprune.errors import InputError
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.groups import Units
from onnxprune.graph.rewrite import Rewrite, shift_bias
from onnxprune.operators import Interval, op_of
from onnxprune.operators.affine import affine_interval
from onnxprune.operators.interval import Array
from onnxprune.operators.linear import LinearLayer
from onnxprune.pass_api import Exactness, PassReport
from onnxprune.removal import execute

from .factorization import Factors, Rule, by_product, by_rows
from .linear_chain import (
    PRECISE,
    find_chain,
    has_bias,
    input_box,
    stored,
    weight_type,
    write,
)

RULES: dict[str, Rule] = {"product": by_product, "rows": by_rows}


@dataclass(frozen=True)
class MergeDependent:
    """Replace stably active ReLU units by fewer ones with the same effect on the layers behind.

    With Q the stably active units, the layers behind see ``M x`` with ``M = W_next[:, Q] W[Q]``. A factorisation
    ``M = C V`` of rank r needs only r units ``V x + c``. The deviation ``|C V - M|`` times the size of the inputs
    is proved and reported. Convolutions count with every tap; those behind must not be padded, because a bias
    moves there.

    Attributes:
        rule: "product": V is a basis of the rows of M, and c so large that its units stay active on the domain.
            "rows": V is a basis of the rows W[Q], whose units stay as they are (Serra et al. 2020, 2021); the
            rank is never smaller.
    """

    name: ClassVar[str] = "merge_dependent"
    exactness: ClassVar[Exactness] = Exactness.ON_DOMAIN
    order: ClassVar[int | None] = 60

    rule: Literal["product", "rows"] = "product"

    def __post_init__(self) -> None:
        """Refuse a rule there is not.

        Raises:
            InputError: It is neither of the two.
        """
        if self.rule not in RULES:
            raise InputError(
                f"Option 'rule' of pass '{self.name}' cannot be '{self.rule}'.", hint=f"It is {' or '.join(RULES)}."
            )

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Merge in the last layer where it pays: the layers in front of it then see fewer readers."""
        for hidden in reversed(list(_hidden_layers(graph, facts))):
            merged = _merge(hidden, facts.bounds, RULES[self.rule])
            if merged is not None and _pays(hidden, merged):
                return _apply(graph, facts, hidden, merged)
        return PassReport()


@dataclass(frozen=True)
class _Hidden:
    """A layer, behind its ReLU the layers that alone read it, and its stably active units."""

    units: Units
    layer: LinearLayer
    output: str
    """The tensor behind the ReLU."""
    readers: tuple[LinearLayer, ...]
    active: NDArray[np.int64]
    held: NDArray[np.bool_]
    """Which of the active units must not be removed."""


@dataclass(frozen=True)
class _Merged:
    active: NDArray[np.int64]
    """The units that are merged; the new ones take the places of the first."""
    rows: Array
    """V, shape (r, in x taps), as rounded to the type of the model."""
    offset: Array
    """c, shape (r,)."""
    columns: tuple[Array, ...]
    """C, shape (out x taps, r), per reader."""
    deviations: tuple[float, ...]
    """Per reader."""
    fresh: bool
    """Whether the rows are new, not those of the units whose places they take."""


def _hidden_layers(graph: Graph, facts: Facts) -> Iterator[_Hidden]:
    for units in facts.groups.units:
        chain = find_chain(graph, units.node)
        if chain is None or chain.activation is None or op_of(chain.activation) != "Relu":
            continue
        if not all(reader.uniform for reader in chain.readers):
            continue
        active = np.flatnonzero(chain.active(facts.bounds) & facts.groups.removable[units.components])
        held = facts.held[units.components[active]]
        if len(active) > 1 and not held.all():
            output = str(chain.activation.outputs[0].name)
            yield _Hidden(units, chain.layer, output, chain.readers, active, held)


def _merge(hidden: _Hidden, bounds: Bounds, rule: Rule) -> _Merged | None:
    """The factorisation, or None where it keeps as many units or cannot be bounded."""
    layer = hidden.layer
    inputs = input_box(bounds, layer)
    size = inputs.magnitude()
    if not np.isfinite(size).all() or size.max(initial=0.0) > np.finfo(np.float32).max / 2:
        return None
    front = layer.weights[hidden.active].reshape(len(hidden.active), -1)
    behind = [_behind(reader, hidden.active) for reader in hidden.readers]
    factors = rule(front, np.concatenate(behind), size, hidden.held)
    return None if factors is None else _rounded(hidden, factors, inputs)


def _behind(reader: LinearLayer, units: NDArray[np.int64]) -> Array:
    """What a reader multiplies units by, shape (out x taps, units)."""
    return np.asarray(reader.weights[:, units].swapaxes(1, 2).reshape(-1, len(units)))


def _rounded(hidden: _Hidden, factors: Factors, inputs: Interval) -> _Merged | None:
    """The factors as they can be stored, with what that changes; None where it is too much."""
    layer, size = hidden.layer, inputs.magnitude()
    active = hidden.active[factors.order]
    rank, fresh = len(factors.rows), factors.columns is None
    rows = stored(factors.rows, layer) if fresh else factors.rows
    front = layer.weights[active].reshape(len(active), -1)
    columns, deviations, start = [], [], 0
    for reader in hidden.readers:
        behind = _behind(reader, active)
        product = behind @ front
        if factors.columns is None:
            exact = np.linalg.lstsq(rows.T, product.T, rcond=None)[0].T
        else:
            exact = factors.columns[start : start + len(behind)]
        start += len(behind)
        column = stored(np.asarray(exact, np.float64), reader)
        gap = np.abs(column @ rows - product)
        rounding = 1e-12 * (np.abs(column) @ np.abs(rows) + np.abs(behind) @ np.abs(front))
        moved = _per_output(reader, (gap + rounding) @ size)
        if (moved > PRECISE * _per_output(reader, np.abs(product) @ size)).any():
            return None
        columns.append(column)
        deviations.append(float(moved.max()))
    offset = _offset(layer, rows, inputs) if fresh else _bias(layer)[active[:rank]]
    return _Merged(active, rows, offset, tuple(columns), tuple(deviations), fresh)


def _per_output(reader: LinearLayer, values: Array) -> Array:
    return np.asarray(values.reshape(reader.n_out, -1).sum(axis=1))


def _offset(layer: LinearLayer, rows: Array, inputs: Interval) -> Array:
    """What has to be added to new rows so that they are never negative."""
    box = inputs.map(lambda v: v[None, :])
    nothing = Interval.point(np.zeros(len(rows)))
    reach = affine_interval(rows, np.abs(rows), rows.shape[1], box, nothing)
    values, dtype = np.maximum(-reach.lower.reshape(-1), 0.0), weight_type(layer)
    rounded = values.astype(dtype)
    rounded = np.where(rounded.astype(np.float64) < values, np.nextafter(rounded, np.asarray(np.inf, dtype)), rounded)
    return np.asarray(rounded, dtype=np.float64)


def _bias(layer: LinearLayer) -> Array:
    return layer.bias if layer.bias is not None else np.zeros(layer.n_out)


def _pays(hidden: _Hidden, merged: _Merged) -> bool:
    """Whether fewer parameters are left: layers without a bias get one. Multiply-adds always become fewer."""
    layer, gone = hidden.layer, len(merged.active) - len(merged.rows)
    per_unit = int(layer.weights[0].size) + has_bias(layer) + sum(int(r.weights[:, 0].size) for r in hidden.readers)
    added = 0 if has_bias(layer) or not merged.fresh else layer.n_out - gone
    added += sum(0 if has_bias(reader) else reader.n_out for reader in hidden.readers)
    return gone * per_unit > added


def _apply(graph: Graph, facts: Facts, hidden: _Hidden, merged: _Merged) -> PassReport:
    """Remove all but r of the active units and make those r the new ones."""
    layer, active = hidden.layer, merged.active
    places, rest = active[: len(merged.rows)], active[len(merged.rows) :]
    bias = _bias(layer)
    deviations = {r.writes[0]: d for r, d in zip(hidden.readers, merged.deviations, strict=True) if d}
    anywhere, _ = facts.bounds_anywhere.channel(*layer.writes, layer.n_out)
    remove = {int(c) for c in hidden.units.components[rest]}
    report = execute(graph, facts, Rewrite(remove=remove), deviations)
    kept = np.delete(np.arange(layer.n_out), rest)
    now = np.searchsorted(kept, places)
    if merged.fresh:
        write(graph, layer, layer.weight_out, now, merged.rows)
        shift = np.zeros(layer.n_out)
        shift[places] = merged.offset - bias[places]
        _rounded_by(report, layer, shift_bias(graph, layer, shift, kept))
        name, axis = layer.writes
        report.replaced = {(name, axis): now, (hidden.output, axis): now}
    for reader, columns in zip(hidden.readers, merged.columns, strict=True):
        write(graph, reader, reader.weight_in, now, _columns_first(reader, columns))
        moved = _behind(reader, active) @ bias[active] - columns @ merged.offset
        _rounded_by(report, reader, shift_bias(graph, reader, _per_output(reader, moved)))
    report.merged = {label(layer.node): len(rest)}
    report.needed_domain = bool((anywhere[active] < 0).any())
    return report


def _rounded_by(report: PassReport, layer: LinearLayer, rounding: float) -> None:
    name = layer.writes[0]
    report.rounding = max(report.rounding, rounding)
    report.moved[name] = report.moved.get(name, 0.0) + rounding


def _columns_first(reader: LinearLayer, columns: Array) -> Array:
    """Columns of shape (out x taps, r) as (r, out, taps), the order in which they are stored."""
    return columns.reshape(reader.n_out, -1, columns.shape[1]).transpose(2, 0, 1)
