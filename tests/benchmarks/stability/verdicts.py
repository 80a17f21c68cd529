"""The tables of every group, and whether the figures that are wanted are reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cases import FULL, Case
from .table import (
    Baseline,
    Key,
    Peer,
    Row,
    against_truth,
    architecture,
    contradictions,
    markdown,
    missed,
    published,
    read_truth,
)

QUICK = 5.0
FASTER = 30.0
CIFAR = "cifar10_400-400"
LEFT = {"2x400": 0.55, "2x800": 0.35}
"""Share of hidden units that may be left."""
MORE, SHARE, NOTHING = 1.05, 0.1, 0.05
"""Linear bounds with slopes: undecided units and seconds in terms of alpha-CROWN's; and seconds that count as none."""
CHANNELS = {"maxpool": 5, "avgpool": 7}
NARROW = 1.02


@dataclass(frozen=True)
class Evidence:
    """All rows, and what they are compared with."""

    rows: dict[Key, Row]
    models: Path
    baseline: Baseline
    published: Path | None


Table = tuple[Sequence[str], list[Sequence[Any]], list[str]]


def report(group: str, wanted: Sequence[Case], evidence: Evidence) -> str:
    """Tables of a group: what every method decides, the verdicts, the misses."""
    rows = [evidence.rows[case.key] for case in wanted if case.key in evidence.rows]
    header, lines, misses = TABLES[group](rows, evidence)
    wrong = wrongs(rows, evidence)
    parts = [f"# {group}", markdown(*_plain(rows))]
    if lines:
        parts += ["## Verdicts", markdown(header, lines)]
    if group == "vnncomp":
        parts += ["## Entries undecided per layer", markdown(*_per_layer(rows, evidence))]
    left = len({case.key for case in wanted}) - len({row.key for row in rows})
    parts.append(f"{len(wrong)} contradictions, {len(misses)} misses, {left} not measured.")
    parts.append("\n".join(f"* {line}" for line in [*wrong, *misses]))
    return "\n\n".join(parts) + "\n"


def wrongs(rows: Sequence[Row], evidence: Evidence) -> list[str]:
    """Everything that cannot be true together."""
    found = []
    for model, domain in dict.fromkeys((row.model, row.domain) for row in rows):
        same = [row for row in evidence.rows.values() if (row.model, row.domain) == (model, domain)]
        found += contradictions(same)
        if domain == "0:1":
            truth = read_truth((evidence.models / model).with_suffix(".json"))
            found += [f"{model}: {line}" for row in same for line in against_truth(row, truth)]
    return found


def _plain(rows: Sequence[Row]) -> tuple[Sequence[str], list[Sequence[Any]]]:
    columns = ["model", "domain", "method", "budget", "status", "s", "MB", "units"]
    columns += ["inactive", "active", "constant", "unstable", "undecided", "entries unproved", "stages"]
    lines: list[Sequence[Any]] = []
    for r in rows:
        seconds = None if r.seconds is None else f"{r.seconds:.2f}"
        memory = None if r.peak_mb is None else f"{r.peak_mb:.0f}"
        counts = [r.units, r.inactive, r.active, r.constant, r.unstable, r.undecided, r.unproved]
        lines.append([_short(r.model), r.domain, r.method, r.budget, r.status, seconds, memory, *counts, r.stages])
    return columns, lines


def _short(model: str) -> str:
    return Path(model).stem


def _by_model(rows: Sequence[Row]) -> Iterator[tuple[str, str, dict[str, Row]]]:
    for model, domain in dict.fromkeys((row.model, row.domain) for row in rows):
        yield model, domain, {r.method: r for r in rows if (r.model, r.domain) == (model, domain)}


def _exact(rows: Sequence[Row], evidence: Evidence) -> Table:
    """Every unit, quickly, without a MILP, and as the ground truth has it."""
    lines: list[Sequence[Any]] = []
    misses = []
    for model, _, methods in _by_model(rows):
        row = methods.get("cascade")
        if row is None:
            continue
        truth = read_truth((evidence.models / model).with_suffix(".json"))
        equal = bool(truth) and not against_truth(row, truth) and not missed(row, truth)
        checks = {
            f"{row.undecided} units undecided": row.status == "ok" and row.undecided == 0,
            f"stages {row.stages}": "mip" not in row.stages,
            f"{row.seconds or 0:.2f} s": (row.seconds or 1e9) <= QUICK,
            "states differ from the ground truth": equal,
        }
        small = methods.get("optimize-product")
        widths = (small.figures or {}).get("widths_after") if small else None
        if CIFAR in model:
            stable = [layer["states"].count("a") for layer in row.layers]
            checks[f"stably active {stable}, wanted 85, 116"] = stable == [85, 116]
            if widths:
                checks[f"layer 2 has {widths[1]} units, wanted 142 at most"] = widths[1] <= 142
        misses += [f"{model}: {what}" for what, fine in checks.items() if not fine]
        lines.append([_short(model), *list(checks.values())[:4], str(widths), all(checks.values())])
    header = ["model", "all decided", "no MILP", f"<= {QUICK:g} s", "= truth", "widths after", "all"]
    return header, lines, misses


def _trained(rows: Sequence[Row], evidence: Evidence) -> Table:
    """Units decided; our time, LEO's, the single MILP's and the published ones."""
    lines: list[Sequence[Any]] = []
    misses = []
    for model, domain, _ in _by_model(rows):
        same = [r for r in evidence.rows.values() if (r.model, r.domain) == (model, domain)]
        ours = max((r for r in same if r.method == "cascade"), key=lambda r: float(r.budget), default=None)
        if ours is None or ours.seconds is None:
            continue
        line: list[Any] = [_short(model), f"{ours.units - ours.undecided}/{ours.units}", f"{ours.seconds:.2f}"]
        for name in ("leo", "single"):
            row = max((r for r in same if r.method == name), key=lambda r: float(r.budget), default=None)
            cells, ratio = _milp(row, ours)
            line += cells
            if name == "leo" and ratio is not None and ratio < FASTER:
                misses.append(f"{model}: {cells[-1]} as fast as LEO ({cells[1]} s), wanted {FASTER:g}x")
        cell = architecture((evidence.models / model).with_suffix(".json"))
        log = published(evidence.published, "MNIST", *cell) if evidence.published and cell else None
        line.append(None if log is None else f"{log.least:.0f} / {log.middle:.0f} ({log.timeouts}/{log.runs} late)")
        faster = None if log is None or ours.undecided else ours.seconds < log.least
        if faster is False and log is not None:
            misses.append(f"{model}: {ours.seconds:.1f} s, the published MILP took {log.least:.1f} s at best")
        if ours.undecided:
            misses.append(f"{model}: {ours.undecided} of {ours.units} units undecided in {ours.seconds:.0f} s")
        lines.append([*line, faster])
    header = ["model", "decided", "s", "LEO decided", "LEO s", "LEO ratio", "single decided", "single s"]
    return [*header, "single ratio", "published least / median s", "faster"], lines, misses


def _milp(row: Row | None, ours: Row) -> tuple[list[Any], float | None]:
    """Units decided, seconds, and how many times ours these are; a run that did not finish gives a lower bound."""
    if row is None or not ours.seconds:
        return [None, None, None], None
    finished = row.status == "ok" and row.undecided == 0
    seconds = float(row.budget) if row.seconds is None else row.seconds
    ratio = seconds / ours.seconds
    comparable = finished or not ours.undecided
    cells: list[Any] = [f"{row.units - row.undecided}/{row.units}", f"{'' if finished else '> '}{seconds:.1f}"]
    if row.status != "ok":
        cells[0] = row.status
    text = f"{'' if finished else '>= '}{ratio:.0f}x" if comparable else None
    return [*cells, text], ratio if finished else None


def _merge(rows: Sequence[Row], _: Evidence) -> Table:
    """Hidden units left."""
    lines: list[Sequence[Any]] = []
    misses = []
    for row in rows:
        f = row.figures or {}
        if "hidden_after" not in f:
            misses.append(f"{row.model} {row.method}: {row.status}")
            continue
        share = f["hidden_after"] / f["hidden_before"]
        limit = next((limit for name, limit in LEFT.items() if name in row.model), 1.0)
        fine = share <= limit
        if not fine:
            misses.append(f"{row.model} {row.method}: {share:.1%} of the hidden units left, wanted {limit:.0%}")
        line = [_short(row.model), row.method, f"{f['hidden_before']} -> {f['hidden_after']}", f"{share:.1%}", fine]
        line += [
            str(f["widths_after"]),
            f"{f['macs_before']} -> {f['macs_after']}",
            f["deviation"],
            f["deviation_bound"],
        ]
        lines.append([*line, f["validation_error"], f["own_error"], row.seconds])
    header = ["model", "method", "hidden units", "left", "enough", "widths after", "MACs", "deviation", "bound"]
    return [*header, "validation error", "own error", "s"], lines, misses


def _vnncomp(rows: Sequence[Row], evidence: Evidence) -> Table:
    """Entries left unproved, beside auto_LiRPA's."""
    lines: list[Sequence[Any]] = []
    misses = []
    for model, domain, methods in _by_model(rows):
        peers = evidence.baseline.get((Path(model).name, domain), {})
        crown, alpha, rough = (peers.get(name) for name in ("CROWN", "alpha", "IBP"))
        plain, slopes, ours = (methods.get(name) for name in ("linear0", "linear8", "cascade"))
        checks: dict[str, bool | None] = {"crown": None, "slopes": None, "time": None, "full": None}
        if crown and plain:
            checks["crown"] = plain.status == "ok" and plain.unproved <= sum(crown.undecided)
        if alpha and slopes:
            done = slopes.status == "ok" and slopes.seconds is not None
            checks["slopes"] = done and slopes.unproved <= MORE * sum(alpha.undecided)
            checks["time"] = done and (slopes.seconds or 0) <= max(SHARE * alpha.seconds, NOTHING)
        if alpha and ours:
            total = sum(alpha.undecided)
            checks["full"] = ours.status == "ok" and (ours.open < total or total == 0 == ours.open)
        names = {"crown": (plain, crown), "slopes": (slopes, alpha), "time": (slopes, alpha), "full": (ours, alpha)}
        misses += [
            f"{model} {domain}: {name}, {_compare(*names[name])}" for name, fine in checks.items() if fine is False
        ]
        width = _width(methods.get("interval"), rough)
        if width is not None and not 1 / NARROW < width < NARROW and Path(model).name in FULL:
            misses.append(f"{model} {domain}: the box is not the baseline's, widths differ by {width:.3f}")
        line: list[Any] = [_short(model), domain, _peer(crown), _ours(plain), checks["crown"]]
        line += [_peer(alpha), _ours(slopes), checks["slopes"], checks["time"]]
        line += [None if ours is None else f"{ours.open} ({ours.undecided} units)", _seconds(ours), checks["full"]]
        lines.append([*line, None if width is None else f"{width:.3f}"])
    header = ["model", "domain", "CROWN", "linear", "<=", "alpha", "slopes", f"<= {MORE:g}", f"<= {SHARE:g} of time"]
    return [*header, "cascade open", "s", "< alpha", "width"], lines, misses


def _per_layer(rows: Sequence[Row], evidence: Evidence) -> tuple[Sequence[str], list[Sequence[Any]]]:
    """Entries left by every method, layer by layer, front to back."""
    lines: list[Sequence[Any]] = []
    for model, domain, methods in _by_model(rows):
        peers = evidence.baseline.get((Path(model).name, domain), {})
        cells: list[Any] = []
        for name, method, count in (("CROWN", "linear0", "unproved"), ("alpha", "linear8", "unproved")):
            peer, row = peers.get(name), methods.get(method)
            cells.append(" ".join(map(str, peer.undecided)) if peer else None)
            cells.append(" ".join(str(layer.get(count, "")) for layer in row.layers) if row else None)
        ours = methods.get("cascade")
        cells.append(" ".join(str(layer.get("open", "")) for layer in ours.layers) if ours else None)
        lines.append([_short(model), domain, *cells])
    return ["model", "domain", "CROWN", "linear", "alpha", "slopes", "cascade open"], lines


def _compare(row: Row | None, peer: Peer | None) -> str:
    assert row is not None
    assert peer is not None
    left = row.open if row.method == "cascade" else row.unproved
    layers = [layer.get("open" if row.method == "cascade" else "unproved", 0) for layer in row.layers]
    ours = f"{row.status} {left} {layers} in {_seconds(row)} s"
    return f"{ours}; auto_LiRPA {sum(peer.undecided)} {list(peer.undecided)} in {peer.seconds:.2f} s"


def _peer(peer: Peer | None) -> str | None:
    return None if peer is None else f"{sum(peer.undecided)} in {peer.seconds:.2f} s"


def _ours(row: Row | None) -> str | None:
    if row is None or row.status != "ok":
        return None if row is None else row.status
    return f"{row.unproved} in {_seconds(row)} s"


def _seconds(row: Row | None) -> str | None:
    return None if row is None or row.seconds is None else f"{row.seconds:.2f}"


def _width(row: Row | None, peer: Peer | None) -> float | None:
    """Mean width of intervals in front of the first ReLU, in terms of the baseline's: 1 if the boxes are the same."""
    if row is None or peer is None or not row.layers or not peer.widths[0]:
        return None
    return float(row.layers[0].get("width") or 0.0) / peer.widths[0]


def _acas(rows: Sequence[Row], _: Evidence) -> Table:
    """States that samples leave open, and the small boxes."""
    lines: list[Sequence[Any]] = []
    misses = []
    for model, domain, methods in _by_model(rows):
        ours, samples = methods.get("cascade"), methods.get("samples")
        if ours is None:
            continue
        left: int | None = None
        settled: int | None = None
        if samples is not None and len(samples.layers) == len(ours.layers):
            pairs = [
                (one, two)
                for a, b in zip(samples.layers, ours.layers, strict=True)
                for one, two in zip(a["states"], b["states"], strict=True)
            ]
            left = sum(one == "?" for one, _ in pairs)
            settled = sum(one == "?" and two != "?" for one, two in pairs)
        fine = ours.status == "ok" and ours.undecided == 0
        if not fine:
            misses.append(f"{model} {domain}: {ours.undecided} of {ours.units} units undecided ({ours.status})")
        lines.append([_short(model), domain, left, settled, ours.undecided, _seconds(ours), ours.stages, fine])
    header = ["model", "domain", "open after samples", "of these settled", "undecided", "s", "stages", "all decided"]
    return header, lines, misses


def _convnet(rows: Sequence[Row], _: Evidence) -> Table:
    """Dead channels at once."""
    lines: list[Sequence[Any]] = []
    misses = []
    for row in rows:
        wanted = next((count for name, count in CHANNELS.items() if name in row.model), 0)
        fine = row.inactive == wanted and (row.seconds or 1e9) < 2 and (row.peak_mb or 1e9) < 500
        what = f"{row.inactive} of {row.units} dead, {_seconds(row)} s, {row.peak_mb or 0:.0f} MB"
        if not fine:
            misses.append(f"{row.model} {row.method}: {what}; wanted {wanted}, 2 s, 500 MB")
        lines.append([_short(row.model), row.method, what, fine])
    return ["model", "method", "found", "reached"], lines, misses


def _onnxsim(rows: Sequence[Row], _: Evidence) -> Table:
    """Stable units: at least as many everywhere, more in total, no timeouts."""
    lines: list[Sequence[Any]] = []
    misses = []
    totals = [0, 0]
    late = [0, 0]
    for model, domain, methods in _by_model(rows):
        ours, peer = methods.get("cascade"), methods.get("onnxsim")
        if ours is None or peer is None or not (ours.units or peer.units or "timeout" in peer.status):
            continue
        fine = ours.status == "ok" and ours.stable >= peer.stable
        for number, row in enumerate((ours, peer)):
            totals[number] += row.stable
            late[number] += row.status != "ok"
        if not fine:
            misses.append(f"{model} {domain}: {ours.stable} stable units ({ours.status}), onnxsim {peer.stable}")
        line = [_short(model), domain, ours.units, f"{ours.inactive} + {ours.active + ours.constant}", _seconds(ours)]
        found = f"{peer.inactive} + {peer.active}" if peer.status == "ok" else peer.status[:60]
        lines.append([*line, found, _seconds(peer), fine])
    ours_all, peer_all = (f"{total} ({bad} failed)" for total, bad in zip(totals, late, strict=True))
    fine = totals[0] > totals[1] and not late[0]
    if not fine:
        misses.append(f"in total {ours_all} against {peer_all}")
    lines.append(["in total", "", "", ours_all, "", peer_all, "", fine])
    header = ["model", "domain", "units", "ours dead + active", "s", "onnxsim dead + active", "s", "at least as many"]
    return header, lines, misses


TABLES: dict[str, Callable[[Sequence[Row], Evidence], Table]] = {
    "exact": _exact,
    "trained": _trained,
    "leo": _trained,
    "single": _trained,
    "merge": _merge,
    "vnncomp": _vnncomp,
    "acas": _acas,
    "convnet": _convnet,
    "onnxsim": _onnxsim,
}
