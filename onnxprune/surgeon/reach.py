"""Differentiating as much of a graph as can be: taps behind operators without derivative give way to nearer ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.surgeon.differentiation import Derivatives
from onnxprune.surgeon.targets import Parameters

UNHEARD = "No tap depends"
MUTE = "what it computes cannot be run sample by sample"


def reach(graph: Graph, found: Parameters, provider: str, threads: int) -> tuple[Parameters, Derivatives]:
    """Derivatives of the taps in the parameters, without what cannot be differentiated.

    A tap that cannot be run sample by sample is dropped. Where the way from a layer to a tap leads through an
    operator without a derivative, that tap is dropped, too, and the layer's own output becomes one.

    Args:
        graph: The graph.
        found: Parameters and taps as wished.
        provider: Execution provider.
        threads: Threads of ONNX Runtime.

    Returns:
        Parameters and taps as possible, with the reasons for what stays as it is; derivatives of these.

    Raises:
        InputError: Nothing can be pruned.
    """
    names = [*(target.name for target in found.targets), *found.followers]

    def derivatives(taps: list[str]) -> Derivatives:
        return Derivatives(graph, names, taps, provider=provider, threads=threads)

    try:
        whole = derivatives(list(found.taps))
        blind = any(target.name in whole.refused for target in found.targets)
    except InputError:
        blind = True
    if blind:
        taps = {tap: size for tap, size in found.taps.items() if _clear(derivatives, tap)}
        near = _near(graph, found, derivatives(list(taps)) if taps else None)
        taps |= {tap: size for tap, size in near.items() if _clear(derivatives, tap)}
        found = replace(found, taps=taps, outputs=tuple(name for name in found.outputs if name in taps))
        if taps:
            whole = derivatives(list(taps))
    refused = dict.fromkeys(names, MUTE) if not found.taps else whole.refused
    refused = {n: why if not why.startswith(UNHEARD) else MUTE for n, why in refused.items()}
    gone = {t.layer: refused[t.name] for t in found.targets if t.name in refused}
    if len(gone) == len(found.targets):
        reasons = {**found.refused, **gone}
        hint = "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:2])
        raise InputError(
            "The model has no weights that can be pruned.", hint=hint or "It has no Conv, Gemm or MatMul with weights."
        )
    return reachable(found, refused), whole


def reachable(found: Parameters, refused: dict[str, str]) -> Parameters:
    """Without the weights that are refused, by name."""
    gone = {t.layer: refused[t.name] for t in found.targets if t.name in refused}
    return replace(
        found,
        targets=tuple(t for t in found.targets if t.name not in refused),
        followers=tuple(name for name in found.followers if name not in refused),
        refused={**found.refused, **gone},
    )


def _clear(derivatives: Callable[[list[str]], Derivatives], tap: str) -> bool:
    """Whether a tap can be run, and no weight's way to it is blocked."""
    try:
        alone = derivatives([tap])
    except InputError:
        return False
    return all(reason.startswith(UNHEARD) for reason in alone.refused.values())


def _near(graph: Graph, found: Parameters, known: Derivatives | None) -> dict[str, int]:
    """Outputs of the layers that no tap speaks for."""
    static = StaticGraph(graph)
    mute = [t for t in found.targets if known is None or t.name in known.refused]
    return {t.normal.writes[0]: static.size(t.normal.writes[0]) or 0 for t in mute}
