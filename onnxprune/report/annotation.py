"""What happened to a layer, written into its node, where viewers such as Netron show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.stability import LayerStates, State

PREFIX = "onnxprune."


def annotated(
    model: onnx.ModelProto, layers: Iterable[LayerStates], kept: Mapping[str, NDArray[np.int64]]
) -> onnx.ModelProto:
    """A copy of a model whose changed layers say what went: ``metadata_props`` of their nodes.

    ``onnxprune.units`` is "64 of 100", ``onnxprune.removed_units`` the number of those that are gone, and
    ``onnxprune.states`` counts the states of all units before. The field came with IR version 10. The model keeps its
    own version all the same: readers skip what they do not know, whereas a version they do not know stops them.
    A node without a name goes by that of its first output; where another node is called that, neither is changed.

    Args:
        model: The optimized model; its layers are called as in the report.
        layers: States of the units before anything was removed.
        kept: Per changed layer the units that are left.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    texts = {states.name: _texts(states, len(kept[states.name])) for states in layers if states.name in kept}
    names = [node.name or next(iter(node.output), "") for node in result.graph.node]
    often = Counter(names)
    for name, node in zip(names, result.graph.node, strict=True):
        found = texts.get(name)
        if found and often[name] == 1:
            others = [(entry.key, entry.value) for entry in node.metadata_props if entry.key not in found]
            del node.metadata_props[:]
            for key, value in (*others, *found.items()):
                node.metadata_props.add(key=key, value=value)
    return result


def _texts(states: LayerStates, left: int) -> dict[str, str]:
    total = len(states.states)
    if left == total:
        return {}
    counts = {state.value: states.count(state) for state in State}
    return {
        f"{PREFIX}units": f"{left} of {total}",
        f"{PREFIX}removed_units": str(total - left),
        f"{PREFIX}states": ", ".join(f"{state} {count}" for state, count in counts.items() if count),
    }
