"""Plots with axes, drawn by matplotlib as SVG in the colours of the page; without matplotlib there are none."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.stability import LayerStates, State

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "Not drawn: pip install 'onnxprune[plots]' brings matplotlib."
MOST_UNITS = 60
"""Intervals drawn of one layer; more of them run into one another."""
UNBOUNDED = 1e30
"""Bounds of this size stand for values that are only known to be finite."""
MOST_POINTS = 60
"""Single runs drawn of one model."""
_LINEAR = 0.01
"""Share of the largest bound up to which the axis of bounds is linear."""
QUIET = 0.95
"""Share of the runs that the axis of latencies must show; the slowest few would press all others together."""

_COLOURS = {"ink": "#010101", "quiet": "#010102", "line": "#010103", "accent": "#010104"}
_COLOURS |= {state.value: f"#0102{number:02x}" for number, state in enumerate(State)}
"""What matplotlib is told, and what the finished drawing names instead, so that the page's colours hold."""
_SIZES = {"font.size": 9, "axes.linewidth": 0.8, "xtick.major.size": 3, "ytick.major.size": 3}


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401, PLC0415 # an optional extra
    except ImportError:
        return False
    return True


def intervals(layer: LayerStates) -> str:
    """Proved bounds on the pre-activations of a layer, a line per unit in the colour of its state.

    Of more than ``MOST_UNITS`` bounded units an even sample is drawn. The axis is linear near 0 only, so that narrow
    margins show beside wide bounds. Empty where no unit is bounded.
    """
    chosen = drawn(layer)
    if not len(chosen):
        return ""
    low, high = float(layer.lower[chosen].min()), float(layer.upper[chosen].max())
    size = max(-low, high, 1e-30)
    height = 0.55 + 0.028 * max(len(chosen), 12)
    with _drawing(f"intervals {layer.name}", (3.6, height)) as (axes, finished):
        axes.axvline(0, color=_COLOURS["quiet"], linewidth=0.8, dashes=(2, 2))
        for state in State:
            rows = [row for row, unit in enumerate(chosen) if layer.states[unit] is state]
            ends = [(layer.lower[chosen[row]], layer.upper[chosen[row]], np.nan) for row in rows]
            heights = np.repeat(rows, 3)
            axes.plot(np.ravel(ends), heights, color=_COLOURS[state.value], linewidth=1.8, solid_capstyle="round")
        axes.set_ylim(len(chosen), -1)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xscale("symlog", linthresh=_LINEAR * size, linscale=0.3)
        powers = [power for power in 10.0 ** (np.floor(np.log10(size)) - np.arange(2)) if power > 5 * _LINEAR * size]
        axes.set_xticks([*(-power for power in powers), 0, *powers])
        axes.set_xlim(-1.25 * size, 1.25 * size)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_xlabel("pre-activation (logarithmic on both sides)")
    return _inline(finished, f"Bounds of {len(chosen)} units of {layer.name}, between {low:.3g} and {high:.3g}.")


def drawn(layer: LayerStates) -> NDArray[np.int64]:
    """Units that are drawn, state by state, and within each from the lowest centre to the highest."""
    finite = np.flatnonzero(bounded(layer))
    places = {state: place for place, state in enumerate(State)}
    states = [places[layer.states[unit]] for unit in finite]
    order = np.lexsort((layer.lower[finite] + layer.upper[finite], np.array(states)))
    return _spread(finite[order], MOST_UNITS)


def bounded(layer: LayerStates) -> NDArray[np.bool_]:
    """Which units have bounds on both sides that say more than that the value is a finite float32."""
    return np.asarray((layer.lower > -UNBOUNDED) & (layer.upper < UNBOUNDED))


def _spread(values: NDArray[Any], most: int) -> NDArray[Any]:
    """As many values, evenly taken, the first and the last among them."""
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).round().astype(int)]


def latency(times: Mapping[str, NDArray[np.float64]]) -> str:
    """Latencies of several models: quartiles as a box, 5 to 95 % as whiskers, single runs as dots.

    Args:
        times: Milliseconds per run, by what the model is called.
    """
    top = max(float(np.quantile(values, QUIET)) for values in times.values())
    with _drawing("latency", (3.6, 2.6)) as (axes, finished):
        line = {"color": _COLOURS["ink"], "linewidth": 1.2}
        axes.boxplot(
            list(times.values()),
            whis=(5, 95),
            showfliers=False,
            widths=0.5,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": _COLOURS["accent"], "linewidth": 2},
        )
        for place, values in enumerate(times.values(), start=1):
            shown = _spread(np.sort(values[values <= 1.1 * top]), MOST_POINTS)
            beside = place + 0.36 + 0.05 * (np.arange(len(shown)) % 3)
            axes.plot(beside, shown, ".", color=_COLOURS["quiet"], markersize=2.5)
        axes.set_xticks(range(1, len(times) + 1), list(times))
        axes.set_ylim(0, 1.1 * top)
        axes.set_ylabel("milliseconds per run")
    medians = ", ".join(f"{name} {np.median(values):.3g} ms" for name, values in times.items())
    return _inline(finished, f"Latencies of single runs; medians: {medians}.")


def course(values: Sequence[float], what: str) -> str:
    """A value per stage, as a line over a logarithmic axis where all are positive.

    Args:
        values: From the first stage to the last.
        what: The name of the value.
    """
    with _drawing("course", (3.6, 2.2)) as (axes, finished):
        axes.plot(range(1, len(values) + 1), values, color=_COLOURS["accent"], linewidth=1.6)
        if min(values) > 0:
            axes.set_yscale("log")
            axes.minorticks_off()
        axes.set_xlabel("stage")
        axes.set_ylabel(what)
    return _inline(finished, f"{what} over {len(values)} stages, from {values[0]:.3g} to {values[-1]:.3g}.")


@contextmanager
def _drawing(name: str, size: tuple[float, float]) -> Iterator[tuple[Axes, io.StringIO]]:
    """Axes to draw on, and the text that holds the drawing once the block has ended."""
    from matplotlib import style  # noqa: PLC0415 # an optional extra
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify": False, **_SIZES}
    colours = {"axes.edgecolor": "line", "axes.labelcolor": "quiet", "xtick.color": "quiet", "ytick.color": "quiet"}
    text = io.StringIO()
    chosen = {**settings, **{key: _COLOURS[colour] for key, colour in colours.items()}}
    with style.context(["default", chosen]):  # whatever the user's own settings are
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        yield axes, text
        figure.savefig(
            text, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )


def _rounded(tag: re.Match[str]) -> str:
    """A tag with its coordinates to a tenth of a point."""
    return re.sub(r"\d+\.\d{2,}", lambda found: f"{float(found[0]):.1f}", tag[0])


def _inline(drawing: io.StringIO, alternative: str) -> str:
    """SVG to stand in a page: without what only a file needs, with the page's colours and a text alternative."""
    text = drawing.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    text = re.sub(r' (?:xmlns|xmlns:xlink|width|height|version)="[^"]*"', "", head) + ">" + rest
    used = set(re.findall(r"#([mp][0-9a-f]{10})", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "sans-serif", text)
    text = re.sub(r"<[^>]*>", _rounded, text)
    for name, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"\s*\n\s*", " ", text).replace("> <", "><")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(alternative)}"', 1)
