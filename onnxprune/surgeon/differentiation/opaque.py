"""Operators without a derivative: how they are computed nevertheless, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxprune.operators import NodeView
from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.static import FLOATS, static
from onnxprune.surgeon.differentiation.rule import Call, Rule


class Opaque(Rule):
    """A rule for values alone."""

    def slots(self, call: Call) -> set[int]:
        """None."""
        return set()


class Lookup(Opaque):
    """Gather from a table that is the same for all samples."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """One look-up for all samples."""
        table, index = call.inputs[0], call.inputs[1]
        if index is None or not index.rows or (table is not None and table.rows) or int(call.node.attr("axis", 0)):
            return None
        name = call.tape.emit("Gather", [call.operand(0), call.tape.stacked(index)], axis=0)[0]
        return [call.tape.settled(name, call.shape)]


class SampleBySample(Opaque):
    """Any node, in a loop over samples."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """A Scan whose body is the node."""
        node, tape = call.node, call.tape
        varying = [slot for slot, x in enumerate(call.inputs) if x is not None and x.rows]
        shapes = [static(node.out_shape(k)) for k in range(node.n_outputs) if node.output(k)]
        if not varying or not self._portable(node, tape.opset) or not all(shape is not None for shape in shapes):
            return None
        body, count = self._body(call, varying), len(shapes)
        names = tape.emit(
            "Scan",
            [tape.stacked(call.given(slot)) for slot in varying],
            count=count,
            body=body,
            num_scan_inputs=len(varying),
        )
        found = [tape.settled(name, shape or ()) for name, shape in zip(names, shapes, strict=True)]
        return found if len(found) == node.n_outputs else found[:1] if node.output(0) else None

    @staticmethod
    def _portable(node: NodeView, opset: int) -> bool:
        """Whether the node means the same in the model under construction; nodes with bodies are not asked."""
        if (node.node.domain or "") not in ("", "ai.onnx") or any(
            isinstance(v, gs.Graph) for v in node.node.attrs.values()
        ):
            return False
        if not onnx.defs.has(node.op):
            return False
        then, now = (onnx.defs.get_schema(node.op, version, "").since_version for version in (node.opset, opset))
        return bool(then == now)

    @staticmethod
    def _body(call: Call, varying: Sequence[int]) -> onnx.GraphProto:
        node, tape = call.node, call.tape
        proto = OnnxExporter.export_node(node.node)
        inputs, weights = [], []
        for slot in range(node.n_inputs):
            if not node.has_input(slot):
                continue
            name, values = f"body:{slot}", node.constant(slot)
            if values is not None:
                typed = tape.values(values) if values.dtype.name in FLOATS else values
                weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(typed).reshape(values.shape), name))
            elif slot in varying:
                inputs.append(
                    helper.make_tensor_value_info(name, _kind(call, node.in_type(slot).dtype), call.input_shape(slot))
                )
            else:
                name = call.given(slot).name
            proto.input[slot] = name
        outputs = []
        for k in range(node.n_outputs):
            proto.output[k] = f"body:output:{k}" if node.output(k) else ""
            if node.output(k):
                dtype = node.types[node.output(k)].dtype
                outputs.append(helper.make_tensor_value_info(proto.output[k], _kind(call, dtype), None))
        return helper.make_graph([proto], "sample", inputs, outputs, weights)


def _kind(call: Call, dtype: np.dtype[Any] | None) -> int:
    floating = dtype is None or dtype.name in FLOATS
    return int(helper.np_dtype_to_tensor_dtype(call.tape.dtype if dtype is None or floating else dtype))


RULES: dict[str, Rule] = {"Gather": Lookup()}
OTHERS = SampleBySample()
