"""Pictures of slices: SVG and HTML are written as they are, PNG by matplotlib."""

from __future__ import annotations

import colorsys
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.graph.files import atomic
from onnxprune.regions.plane import Plane
from onnxprune.regions.polygon import Point, Polygon
from onnxprune.regions.slice import Slice

Colour = Literal["cell", "class"]
Shape = tuple[Polygon, str, str]
"""Corners, colour, and what to say about it."""

FORMATS = (".svg", ".png", ".html")
PALETTE = "#4e79a7 #f28e2b #59a14f #e15759 #b07aa1 #edc948 #76b7b2 #ff9da7 #9c755f #bab0ac".split()
SIZE = 800
"""Pixels along the longer side."""
LINE = "#222222"
INK = "#000000"


def write_picture(found: Slice, path: str | Path, *, colour: Colour = "cell", names: Sequence[str] = "abc") -> None:
    """Draw a slice.

    Args:
        found: The slice.
        path: Where to; the ending says how: ``.svg``, ``.png`` or ``.html``.
        colour: Every region in a colour of its own, or by the largest output.
        names: What the three points are called.

    Raises:
        InputError: Another ending, or the class is not known.
        EnvironmentFailure: matplotlib is missing (for ``.png``), or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"A slice cannot be written to {path.name}.", hint=f"Endings: {', '.join(FORMATS)}.")
    shapes = _shapes(found, colour)
    if path.suffix.lower() == ".png":
        content = _png(found, shapes, colour, names)
    else:
        drawing = _svg(found, shapes, colour, names)
        content = (drawing if path.suffix.lower() == ".svg" else _page(found, drawing, colour)).encode()
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def check_picture(path: str | Path) -> None:
    """Refuse, before any work is done, a picture that could not be drawn.

    Raises:
        InputError: The ending is none of a picture's.
        EnvironmentFailure: matplotlib is missing (for ``.png``).
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"A slice cannot be written to {Path(path).name}.", hint=f"Endings: {', '.join(FORMATS)}.")
    if suffix == ".png":
        _matplotlib()


def summary(found: Slice) -> str:
    """One line about a slice."""
    count = len(found.regions)
    text = f"{count} linear region{'s' * (count != 1)} on the slice"
    if found.thin:
        text += f" ({found.thin} thinner than rounding left out)"
    return text if found.complete else f"at least {text}; the work ended before all was covered"


def _shapes(found: Slice, colour: Colour) -> list[Shape]:
    if colour == "class":
        parts = found.classes()
        single = any(r.outputs is not None and r.outputs.shape[1] == 1 for r in found.regions)
        texts = ["output < 0", "output >= 0"] if single else [f"class {n}" for n in range(1 + max(p[0] for p in parts))]
        return [(corners, PALETTE[number % len(PALETTE)], texts[number]) for number, corners in parts]
    return [
        (region.corners, _hue(number), f"region {number}: {region.active} units on")
        for number, region in enumerate(found.regions)
    ]


def _hue(number: int) -> str:
    """Colours that neighbours in a list never share: steps of the golden ratio around the wheel."""
    red, green, blue = colorsys.hls_to_rgb(number * 0.6180339887 % 1, 0.68 + 0.08 * (number % 3 - 1), 0.55)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _frame(window: Polygon) -> tuple[Point, Point]:
    xs, ys = [x for x, _ in window], [y for _, y in window]
    room = 0.02 * max(max(xs) - min(xs), max(ys) - min(ys))  # for marks on the rim
    return (min(xs) - room, min(ys) - room), (max(xs) + room, max(ys) + room)


def _width(count: int) -> float:
    """Outlines fade where regions are many."""
    return 1.0 if count < 1000 else 0.5 if count < 10_000 else 0.25


def _svg(found: Slice, shapes: Sequence[Shape], colour: Colour, names: Sequence[str]) -> str:
    (left, bottom), (right, top) = _frame(found.window)
    scale = SIZE / max(right - left, top - bottom)
    width, height = (right - left) * scale, (top - bottom) * scale

    def at(point: Point) -> str:
        return f"{(point[0] - left) * scale:.3f},{(top - point[1]) * scale:.3f}"

    thickness = _width(len(found.regions))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="16">',
        f"<title>{html.escape(summary(found))}</title>",
        f'<g stroke-width="{0.4 if colour == "class" else thickness}" stroke-linejoin="round">',
    ]
    for corners, fill, text in shapes:
        edge = LINE if colour == "cell" else fill
        outline = " ".join(map(at, corners))
        lines.append(
            f'<polygon points="{outline}" fill="{fill}" stroke="{edge}"><title>{html.escape(text)}</title></polygon>'
        )
    lines.append("</g>")
    if colour == "class":
        outlines = "".join(f"M{' L'.join(map(at, region.corners))}Z" for region in found.regions)
        lines.append(f'<path d="{outlines}" fill="none" stroke="{LINE}" stroke-width="{thickness / 2}"/>')
    for mark, name in zip(found.plane.marks, names, strict=False):
        x, y = at(mark).split(",")
        lines.append(f'<circle cx="{x}" cy="{y}" r="6" fill="white" stroke="{INK}" stroke-width="2"/>')
        lines.append(
            f'<text x="{float(x) + 10:.1f}" y="{float(y) - 8:.1f}" fill="{INK}" stroke="white" stroke-width="4" '
            f'paint-order="stroke">{html.escape(str(name))}</text>'
        )
    return "\n".join([*lines, "</svg>\n"])


def _page(found: Slice, drawing: str, colour: Colour) -> str:
    what = "by the largest output" if colour == "class" else "one colour per region"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Linear regions</title>\n'
        "<style>body{font-family:sans-serif;margin:2em}svg{max-width:100%;height:auto}"
        "polygon:hover{fill-opacity:.6}</style></head>\n"
        f"<body><h1>Linear regions on a plane</h1>\n<p>{html.escape(summary(found))}; {what}. One unit of length is "
        f"{_pixels(found.plane, found.window):.4g} pixels. Point at a region to see what it is.</p>\n"
        f"{drawing}</body></html>\n"
    )


def _pixels(plane: Plane, window: Polygon) -> float:
    """Pixels per unit of length in the space of inputs."""
    (left, bottom), (right, top) = _frame(window)
    return SIZE / max(right - left, top - bottom) / plane.length


def _matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401, PLC0415 # an optional extra
    except ImportError as error:
        raise EnvironmentFailure(
            "PNG pictures need matplotlib, which is not installed.",
            hint="Install it with: pip install 'onnxprune[plots]', or write .svg or .html.",
        ) from error


def _png(found: Slice, shapes: Sequence[Shape], colour: Colour, names: Sequence[str]) -> bytes:
    _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 # an optional extra
    from matplotlib.collections import PolyCollection  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    (left, bottom), (right, top) = _frame(found.window)
    size = max(right - left, top - bottom)
    figure = Figure(figsize=(8 * (right - left) / size, 8 * (top - bottom) / size + 0.5), dpi=SIZE // 8)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1 - 0.5 / figure.get_figheight()))
    thickness = 0.7 * _width(len(found.regions))
    fills = [fill for _, fill, _ in shapes]
    edges = [LINE] if colour == "cell" else fills
    corners = [polygon for polygon, _, _ in shapes]
    axes.add_collection(PolyCollection(corners, facecolors=fills, edgecolors=edges, linewidths=thickness))
    if colour == "class":
        cells = [region.corners for region in found.regions]
        axes.add_collection(PolyCollection(cells, facecolors="none", edgecolors=LINE, linewidths=thickness / 2))
        kinds = dict(sorted({text: fill for _, fill, text in shapes}.items()))
        axes.legend(handles=[Patch(color=fill, label=text) for text, fill in kinds.items()], loc="lower right")
    for (x, y), name in zip(found.plane.marks, names, strict=False):
        axes.plot([x], [y], "o", color="white", markeredgecolor=INK, markersize=8, markeredgewidth=1.5)
        axes.annotate(
            str(name), (x, y), (7, 6), textcoords="offset points", bbox={"fc": "white", "ec": "none", "pad": 1}
        )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.suptitle(summary(found), fontsize=11, y=1 - 0.12 / figure.get_figheight())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
