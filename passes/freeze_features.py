"""Fold inputs that the domain fixes (or nobody weighs) into the bias; the signature keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.groups import Reader
from onnxprune.graph.rewrite import shift_bias
from onnxprune.pass_api import Exactness, PassReport
from onnxprune.removable import Reading, Status

WORTH = 0.1
"""Share of a layer's inputs that must be fixed before an extra Gather pays."""


@dataclass(frozen=True)
class FreezeFeatures:
    """Feed a dense layer only its free inputs, picked by a Gather; exact on the domain."""

    name: ClassVar[str] = "freeze_features"
    exactness: ClassVar[Exactness] = Exactness.ON_DOMAIN
    order: ClassVar[int | None] = 80

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Freeze every dense layer where it lowers the cost."""
        report = PassReport(values_kept=True)
        readings = zip(facts.groups.readers, facts.removable.readings, facts.removable_anywhere.readings, strict=True)
        for reader, reading, anywhere in readings:
            fixed = _fixed(reader, reading, facts)
            if fixed is not None:
                report.needed_domain |= bool((anywhere.status[fixed] > reading.status[fixed]).any())
                rounding = _freeze(graph, reader, reading, fixed)
                report.rounding = max(report.rounding, rounding)
                report.moved[reader.layer.writes[0]] = rounding
                report.modified = True
                report.changes["inputs frozen"] += int(fixed.sum())
        return report


def _fixed(reader: Reader, reading: Reading, facts: Facts) -> np.ndarray | None:
    """Which inputs of a dense layer to freeze, None where it does not pay."""
    layer = reader.layer
    if layer.node.op not in ("Gemm", "MatMul") or layer.bias is None:
        return None
    exact = (reading.radius == 0.0) | (reading.status == Status.UNUSED)
    fixed = (reading.status < Status.CARRIED) & exact & facts.groups.locked[reader.components]
    if fixed.all():
        fixed[0] = False
    count = int(fixed.sum())
    return fixed if count >= max(1, WORTH * layer.n_in) and count * layer.n_out > layer.n_in else None


def _freeze(graph: Graph, reader: Reader, reading: Reading, fixed: np.ndarray) -> float:
    layer, node = reader.layer, reader.layer.node
    values = np.where(fixed & (reading.status != Status.UNUSED), reading.value, 0.0)
    free = np.flatnonzero(~fixed)
    rounding = shift_bias(graph, layer, layer.columns() @ values)
    source = node.inputs[0]
    picked = gs.Variable(graph.fresh(f"{source.name}_free"), dtype=source.dtype)
    indices = gs.Constant(graph.fresh(f"{source.name}_free_indices"), free.astype(np.int64))
    gather = gs.Node(
        "Gather", f"{label(node)}_free", {"axis": layer.in_axis}, inputs=[source, indices], outputs=[picked]
    )
    graph.insert_before(node, gather)
    node.inputs[0] = picked
    weight = graph.own(node, 1)
    if layer.weight_in is None:
        raise AssertionError("dense layers have an input axis")
    graph.set_values(weight, np.take(np.asarray(weight.values), free, axis=layer.weight_in))
    return rounding
