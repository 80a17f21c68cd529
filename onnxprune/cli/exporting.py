"""``--export``: the result in other formats as well."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

    from onnxprune.report import Report
    from onnxprune.validate import Validator


def add_export_option(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """In which other formats the result is written."""
    group.add_argument(
        "--export", choices=("ort",), metavar="F", help="ort: write OUT for phones as well, in the .ort format"
    )


class Export:
    """What ``--export`` asks for, from the checks before any work to the last line printed; nothing if it is not given.

    Args:
        wanted: Whether it is.
        output: Path of the .onnx file.
        custom_ops: Shared libraries with custom operators.
        dry: Write no files.

    Raises:
        InputError: The files could not be written.
    """

    def __init__(self, *, wanted: bool, output: Path, custom_ops: list[str], dry: bool) -> None:
        self._wanted, self._output, self._custom_ops = wanted, output, custom_ops
        self.files: list[Path] = []
        if wanted and not dry:
            from onnxprune.graph.files import check_writable  # noqa: PLC0415 # quick --help
            from onnxprune.mobile import ort_files  # noqa: PLC0415

            self.files = ort_files(output)
            for file in self.files:
                check_writable(file)

    def usability(self, model: onnx.ModelProto) -> dict[str, dict[str, Any]]:
        """What phones would take of a model; empty where nobody asked.

        Raises:
            EnvironmentFailure: ONNX Runtime's tools cannot tell.
        """
        from onnxprune.mobile import usability  # noqa: PLC0415 # quick --help

        return usability(model, self._custom_ops) if self._wanted else {}

    def told(self, report: Report, before: Mapping[str, Any], model: onnx.ModelProto) -> Report:
        """The report, with the usability of the original and of the result where it was asked for."""
        from onnxprune.mobile.summary import with_usability  # noqa: PLC0415 # quick --help

        return with_usability(report, before, self.usability(model)) if self._wanted else report

    @contextmanager
    def written(self, model: onnx.ModelProto, **options: Any) -> Iterator[None]:
        """Write the files when the block, which writes the model itself, ends well.

        Args:
            model: The result.
            **options: Of the :class:`onnxprune.validate.Validator` that holds the files to the result.
        """
        if not self.files:
            yield
            return
        from onnxprune.mobile import export_ort  # noqa: PLC0415 # quick --help
        from onnxprune.validate import Validator  # noqa: PLC0415

        validator: Validator = Validator(model, custom_ops=self._custom_ops, **options)
        with export_ort(model, self._output, validator, self._custom_ops):
            yield

    def print(self, report: Report, *, file: IO[str]) -> None:
        """What phones would take, and the files that were written."""
        if not self._wanted:
            return
        from onnxprune.mobile.summary import print_usability  # noqa: PLC0415 # quick --help

        print_usability(report["mobile"], file=file)
        for path in self.files:
            print(f"written: {path}", file=file)
