"""``onnxprune verify CERTIFICATE ORIGINAL OPTIMIZED``, or ``onnxprune verify A B``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from onnxprune.cli.common import add_domain_options, check_report, count, read_domain, written_report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnx import StringStringEntryProto

    from onnxprune.verify.checker import Verdict

EXAMPLE = """example:
  onnxprune verify certificate.json model.onnx smaller.onnx
  onnxprune verify model.onnx smaller.onnx --domain 0:1"""


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} CERTIFICATE ORIGINAL OPTIMIZED | {prog} A B [options]",
        description="Check a certificate by simple arithmetic, or compare two models without one.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("files", nargs="+", metavar="FILE", help="a certificate and two models, or two models")
    result.add_argument("--exact", action="store_true", help="compute with rational numbers: slow, nothing is rounded")
    result.add_argument("--report", metavar="R.json", help="write what was found (- for standard output)")
    result.add_argument("--seed", type=count, default=0, metavar="N", help="of the inputs that two models are run on")
    result.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")
    add_domain_options(result)
    return result


def run(options: argparse.Namespace) -> int:
    """Check or compare; 0 where that succeeds, 1 where it does not."""
    from onnxprune.errors import InputError  # noqa: PLC0415 # quick --help

    check_report(options.report, *options.files)
    if len(options.files) == 3:
        return _check(options)
    if len(options.files) == 2:
        return _compare(options)
    raise InputError(
        f"verify takes two or three files, not {len(options.files)}.",
        hint="onnxprune verify CERTIFICATE ORIGINAL OPTIMIZED, or onnxprune verify A B --domain 0:1",
    )


def _check(options: argparse.Namespace) -> int:
    from onnxprune.graph.files import load  # noqa: PLC0415
    from onnxprune.verify.checker import check, check_domain, check_seal  # noqa: PLC0415
    from onnxprune.verify.reading import read  # noqa: PLC0415
    from onnxprune.verify.reasons import Rejected  # noqa: PLC0415

    original, optimized = (load(path) for path in options.files[1:])
    began = time.perf_counter()
    try:
        certificate, seal = read(Path(options.files[0]))
        check_seal(seal, optimized.model)
        if options.domain or options.around:
            check_domain(certificate, original.model, read_domain(options, original))
        verdict = check(certificate, original.model, optimized.model, exact=options.exact)
    except Rejected as error:
        with written_report(_json({"verified": False, "reason": error.what}), options.report):
            print(f"REJECTED: {error.what}", file=_text_goes_to(options))
        return 1
    seconds = time.perf_counter() - began
    with written_report(_json({"verified": True, **_content(verdict), "seconds": seconds}), options.report):
        if not options.quiet:
            print("\n".join(_lines(verdict, seconds)), file=_text_goes_to(options))
    return 0


def _text_goes_to(options: argparse.Namespace) -> TextIO:
    """Standard output holds nothing but the report where that is asked for."""
    return sys.stderr if options.report == "-" else sys.stdout


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _content(verdict: Verdict) -> dict[str, Any]:
    robust = verdict.robust
    return {
        "exact": verdict.exact,
        "units": verdict.units,
        "methods": verdict.methods,
        "solver": verdict.solver,
        "deviation": {name: _bounded(value) for name, value in verdict.deviation.items()},
        "rounding": {name: _bounded(value) for name, value in verdict.rounding.items()},
        "float32": None
        if robust is None
        else {
            "robust": robust.robust,
            "units": robust.units,
            "outputs": {name: _bounded(value) for name, value in robust.outputs.items()},
            "difference": {name: _bounded(value) for name, value in robust.difference.items()},
        },
        "witnessed": verdict.witnessed,
    }


def _bounded(value: float) -> float | None:
    return value if value < 1e30 else None


def _lines(verdict: Verdict, seconds: float) -> Iterator[str]:
    units = ", ".join(f"{count} {state}" for state, count in sorted(verdict.units.items())) or "none"
    yield f"units removed or merged: {units}"
    methods = {name: number for name, number in verdict.methods.items() if name != "none"}
    if methods:
        yield f"proved by: {', '.join(f'{name} {number}' for name, number in sorted(methods.items()))}"
    if verdict.solver:
        yield f"NOT checked: {verdict.solver} bounds rest on the word of a solver, or of the run that proved them"
    for name, value in verdict.deviation.items():
        rounding = _bounded(verdict.rounding[name])
        stored = f"{rounding:.2g}" if rounding is not None else "not bounded: values are not"
        yield f"{name}: off by at most {value:.2g}; rounded constants: {stored}"
    if verdict.robust is not None and verdict.robust.units:
        yield f"robust in float32: {verdict.robust.robust} of {verdict.robust.units}"
        for name, value in verdict.robust.difference.items():
            if _bounded(value) is not None:
                yield f"{name}: float32 runs of the two models differ by at most {value:.2g}, in any order of sums"
    if verdict.witnessed:
        yield f"shown to switch: {verdict.witnessed} units"
    how = "rational numbers" if verdict.exact else "float64, rounded outward"
    yield f"VERIFIED in {seconds:.1f} s ({how})"


def _compare(options: argparse.Namespace) -> int:
    from onnxprune.certificate.comparing import compare  # noqa: PLC0415
    from onnxprune.graph.files import load  # noqa: PLC0415

    one, other = (load(path) for path in options.files)
    found = compare(one.model, other.model, read_domain(options, one), seed=options.seed)
    with written_report(_json(found.content()), options.report):
        if not options.quiet:
            for line in found.lines():
                print(line, file=_text_goes_to(options))
            if not found.alike and not (options.domain or options.around):
                _print_domains(options.files[1], other.model.metadata_props)
    return 0 if found.alike else 1


def _print_domains(name: str, metadata: Iterable[StringStringEntryProto]) -> None:
    """Say what a model was made for, where it was compared on more than that."""
    from onnxprune.optimizer import DOMAIN_KEY  # noqa: PLC0415

    for entry in metadata:
        if entry.key.startswith(DOMAIN_KEY):
            tensor = entry.key.removeprefix(DOMAIN_KEY)
            print(f"{name} was made for the domain {entry.value} of {tensor}: compare on it, with --domain")
