"""Reports to look at: real ones of tiny models, and one of a network of hundreds of layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from typing import Any

import numpy as np

import onnxprune
from onnxprune.report import Report
from onnxprune.report.details import Details
from onnxprune.stability import LayerStates, State
from tests.helpers import dense
from tests.surgeon.small import pruned

VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
TRICKY = "a & b <script>alert('x')</script> \"quoted\""


@cache
def lossless() -> onnxprune.Result[Any]:
    """A model with dead units, over a box."""
    return onnxprune.optimize(dense(inputs="float[2,4] x", outputs="float[2,3] y"), "-1:1", budget=0, remember=False)


@cache
def lossy() -> onnxprune.PruneResult:
    """A pruned model."""
    return pruned(sparsity=0.5)


def large(layers: int = 300, units: int = 128) -> Report:
    """The report of a deep network, made up from that of a small one; one layer has a name full of markup."""
    rng = np.random.default_rng(0)
    content: dict[str, Any] = copy.deepcopy(lossless().report.content)
    row, found, details = content["layers"][0], [], []
    values = list(State)
    for number in range(layers):
        name = f"/features/block.{number}/conv/Conv_of_a_long_name" if number else TRICKY
        states = tuple(values[i] for i in rng.integers(0, len(values), units))
        lower = rng.normal(size=units)
        counts = {state.value: sum(s is state for s in states) for state in State}
        found.append({**row, "name": name, "total": units, **counts, "kept": list(range(units // 2))})
        margins = np.where([s is State.ACTIVE for s in states], np.abs(lower), np.nan)
        details.append(LayerStates(name, "Conv", "Relu", states, margins, lower, lower + rng.random(units)))
    times = {stage: 1 + rng.random(200) for stage in ("before", "tidied", "after")}
    content["layers"] = found
    content["notes"] = [TRICKY]
    return Report(content, Details(details, times))


PAGES: dict[str, Callable[[], Report]] = {
    "lossless": lambda: lossless().report,
    "lossy": lambda: lossy().report,
    "large": large,
}


class Elements(HTMLParser):
    """Elements of a page in order, each as its name and attributes; complains about whatever is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} stands there twice"
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element of that name."""
        return [attributes for name, attributes in self.found if name == tag]
