"""The files that ONNX Runtime's own converter writes for phones: .ort models and the operators they need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import onnx

from onnxprune.errors import EnvironmentFailure, InputError, ValidationError
from onnxprune.graph.files import atomic, save
from onnxprune.validate import Validator

SUFFIXES = (
    ".ort",
    ".required_operators.config",
    ".with_runtime_opt.ort",
    ".required_operators.with_runtime_opt.config",
)
"""Of the files written: all optimizations applied, for CPUs; those left to the device, for NNAPI, CoreML, XNNPACK."""
_LEVEL = "ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL"


def ort_files(output: Path) -> list[Path]:
    """Files that :func:`export_ort` writes beside a model."""
    return [output.with_name(output.stem + suffix) for suffix in SUFFIXES]


@contextmanager
def export_ort(
    model: onnx.ModelProto, output: Path, validator: Validator, custom_ops: Sequence[str] = ()
) -> Iterator[list[Path]]:
    """Write a model in ONNX Runtime's own format beside ``output``, when the block ends well.

    Everything is converted, loaded and compared before the block begins; a failure in it leaves all files as they
    were. The converter (``onnxruntime.tools.convert_onnx_models_to_ort``) runs in a process of its own.

    Args:
        model: The model that the block writes to ``output``.
        output: Path of the .onnx file.
        validator: Holds inputs, and outputs of ``model`` on them.
        custom_ops: Shared library with custom operators; one at most.

    Returns:
        The files, as a context manager.

    Raises:
        InputError: More than one library.
        EnvironmentFailure: The converter fails, or a file cannot be written.
        ValidationError: The .ort file computes something else than the model.
    """
    if len(custom_ops) > 1:
        raise InputError("--export ort takes one library of custom operators.", hint="Link them into one.")
    files = ort_files(output)
    with ExitStack() as stack:
        with _folder(output) as folder:
            save(model, folder / "model.onnx")
            _convert(folder, custom_ops)
            for suffix, target in zip(SUFFIXES, files, strict=True):
                made = folder / f"model{suffix}"
                if suffix.endswith(".ort"):
                    _compare(made, target, validator)
                else:
                    _name_models(made, output.stem)
                shutil.copyfile(made, stack.enter_context(atomic(target)))
        yield files


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """A folder beside the output that vanishes: on the file system that has to have room for the result anyway."""
    try:
        folder = tempfile.TemporaryDirectory(dir=output.parent, prefix=".onnxprune.")
    except OSError as error:
        raise EnvironmentFailure(
            f"Cannot write beside {output}: {error.strerror}.", hint="Nothing was changed."
        ) from None
    with folder as name:
        yield Path(name).resolve()


def _convert(folder: Path, custom_ops: Sequence[str]) -> None:
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", "model.onnx"]
    command += [option for library in custom_ops for option in ("--custom_op_library", str(Path(library).resolve()))]
    environment = {name: value for name, value in os.environ.items() if name != _LEVEL}  # it would rename the files
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    missing = [suffix for suffix in SUFFIXES if not (folder / f"model{suffix}").is_file()]
    if ran.returncode or missing:
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else f"it wrote no {missing[0] if missing else 'result'}"
        raise EnvironmentFailure(
            f"ONNX Runtime cannot convert the model to its own format: {reason}", hint="Leave out --export."
        )


def _compare(made: Path, target: Path, validator: Validator) -> None:
    try:
        validator.check(made)
    except ValidationError as error:
        raise ValidationError(f"{target.name} differs from the .onnx model: {error.what}") from None


def _name_models(config: Path, stem: str) -> None:
    """Comments that name models by their temporary paths name them as they will be called."""
    lines = config.read_text(encoding="utf-8").splitlines()
    named = [
        f"# - {stem}{Path(line[4:]).name.removeprefix('model')}" if line.startswith("# - ") else line for line in lines
    ]
    config.write_text("\n".join(named) + "\n", encoding="utf-8")
