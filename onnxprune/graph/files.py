"""Model files in and out: clear errors, external data, atomic writes."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.graph.kinds import ModelLike, from_ir
from onnxprune.protobuf import LIMIT, byte_size

OLDEST_OPSET = 7


@dataclass(frozen=True)
class Source:
    """A model as it was handed over. ``path`` is None unless it came from a file."""

    model: onnx.ModelProto
    path: Path | None
    external: tuple[str, ...]
    """Relative names of the external data files it uses."""


def load(source: ModelLike) -> Source:
    """Read a model with all its weights; the caller's object is never changed.

    Raises:
        InputError: Missing, truncated or foreign file, missing external data, unsupported opset, NaN weights.
    """
    if isinstance(source, onnx.ModelProto):
        return Source(_checked(_copy(source), "the model"), None, ())
    if isinstance(source, bytes):
        return Source(_checked(_parse(source, "the given bytes"), "the model"), None, ())
    if not isinstance(source, (str, os.PathLike)):
        return Source(_checked(from_ir(source), "the model"), None, ())
    path = Path(source)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"No such file: {path}", hint="Check the path of the input model.") from None
    except IsADirectoryError:
        hint = "Name the .onnx file in it, or optimize all of them: onnxprune zoo DIR OUT_DIR."
        raise InputError(f"{path} is a directory, not an ONNX file.", hint=hint) from None
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.", hint="Check the file's permissions.") from None
    model = _parse(data, str(path))
    external = tuple(sorted(external_files(model)))
    if external:
        _load_external(model, path)
    return Source(_checked(model, str(path)), path, external)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    hint = "It is truncated, or not an ONNX file. Models of other formats have to be exported to ONNX first."
    if not data:
        raise InputError(f"{where} is empty.", hint="Export the model again.")
    try:
        model = onnx.ModelProto()
        model.ParseFromString(data)
    except DecodeError:
        raise InputError(f"{where} cannot be parsed as an ONNX model.", hint=hint) from None
    if not model.ir_version or not model.HasField("graph") or not model.graph.output:
        raise InputError(f"{where} is not an ONNX model (no IR version, graph or outputs).", hint=hint)
    return model


def _checked(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    opset = standard_opset(model)
    if opset is None:
        raise InputError(f"{where} imports no standard ONNX opset.", hint="Export the model again.")
    if opset < OLDEST_OPSET:
        raise InputError(
            f"{where} uses opset {opset}; the oldest supported one is {OLDEST_OPSET}.",
            hint="Raise it with onnx.version_converter.convert_version(model, 13).",
        )
    for name, tensor in _tensors(model.graph):
        values = _array(tensor, name, where)
        if tensor.data_type in _FLOATS and _has_nan(values):
            raise InputError(
                f"{where}: {name} contains NaN.",
                hint="The model is broken; no equivalence can be promised. Repair or re-export it.",
            )
    return model


def _has_nan(values: NDArray[Any]) -> bool:
    with np.errstate(invalid="ignore", over="ignore"):
        if not np.isnan(np.sum(values, dtype=np.float64)):
            return False  # the usual case, without a copy
        return bool(np.isnan(values.astype(np.float64)).any())  # or a sum of +inf and -inf


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}


def _array(tensor: onnx.TensorProto, name: str, where: str) -> NDArray[Any]:
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{where}: {name} is damaged ({error}).", hint="Export the model again.") from None


def standard_opset(model: onnx.ModelProto) -> int | None:
    """Version of the standard operator set the model imports."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions) if versions else None


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """All stored tensors, those of sub-graphs included, each with what to call it."""
    yield from ((f"initializer '{tensor.name}'", tensor) for tensor in graph.initializer)
    for sparse in graph.sparse_initializer:
        yield f"sparse initializer '{sparse.values.name}'", sparse.values
    for node in graph.node:
        owner = f"{node.op_type} '{node.name or node.output[0]}'" if node.output else node.op_type
        for attribute in node.attribute:
            for tensor in (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors):
                yield f"attribute '{attribute.name}' of {owner}", tensor
            for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _tensors(body)


def external_files(model: onnx.ModelProto) -> set[str]:
    """Relative names of the files that hold a model's external data."""
    return {
        entry.value
        for _, tensor in _tensors(model.graph)
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: its external data cannot be read ({reason}).",
            hint="Keep the data files beside the model, under the names it was exported with.",
        ) from None


def size_on_disk(source: Source) -> int:
    """Bytes of the file a model was read from, its external data included; 0 if it was no file."""
    if source.path is None:
        return 0
    files = [source.path, *(source.path.parent / name for name in source.external)]
    return sum(file.stat().st_size for file in files)


def check_writable(path: Path) -> None:
    """Fail early, before minutes of work, when the result could not be written.

    Raises:
        InputError: The folder is missing or not writable, or the path is a directory.
    """
    folder = path.parent
    try:
        if path.is_dir():
            raise InputError(f"The output {path} is a directory.", hint="Name a file to write.")
        if path.exists() and not path.is_file():
            raise InputError(f"The output {path} is not a regular file.", hint="Name a file to write.")
        if not folder.is_dir():
            raise InputError(f"The folder of the output does not exist: {folder}", hint="Create it first.")
        handle, name = tempfile.mkstemp(dir=folder, prefix=_prefix(path))
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        kind = EnvironmentFailure if error.errno in _FULL else InputError
        raise kind(f"Cannot write {path}: {error.strerror}.", hint="Choose another output path.") from None


def check_spares_data(source: Source, path: Path) -> None:
    """Refuse an output that would overwrite the external data of its own input.

    Raises:
        InputError: It would.
    """
    if source.path is not None:
        for name in source.external:
            if (source.path.parent / name).resolve() == path.resolve():
                raise InputError(f"The output {path} holds weights of {source.path}.", hint="Choose another name.")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends well, and vanishes otherwise.

    Raises:
        EnvironmentFailure: The disk is full or the folder not writable; ``path`` is as it was.
    """
    handle, name = -1, ""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path))
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise EnvironmentFailure(
            f"Cannot write {path}: {error.strerror or error}.",
            hint="Nothing was changed; free some space or choose another path.",
        ) from None
    finally:
        if name:
            Path(name).unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """Begins the name of a temporary file; short, because names have a largest length."""
    return f".{path.name[:40]}."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save(model: onnx.ModelProto, path: Path, *, external: bool = False) -> None:
    """Write a model atomically; weights go to ``NAME.data`` when asked for or when it exceeds 2 GB.

    The data file is complete before the model file that names it appears.
    """
    if not external and byte_size(model) <= LIMIT:
        with atomic(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
        return
    data = _unused(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=_prefix(path)) as folder:
            staged = Path(folder) / path.name
            onnx.save_model(_copy(model), staged, save_as_external_data=True, location=data.name, size_threshold=1024)
            if staged.with_name(data.name).exists():
                staged.with_name(data.name).replace(data)
            staged.replace(path)
    except OSError as error:
        data.unlink(missing_ok=True)
        raise EnvironmentFailure(
            f"Cannot write {path}: {error.strerror or error}.", hint="Nothing was changed."
        ) from None


def _unused(path: Path) -> Path:
    candidate, number = path.with_name(f"{path.name}.data"), 0
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.{number}.data")
    return candidate


def copy_unchanged(source: Source, path: Path) -> None:
    """Hand back the very bytes of the input (and its external data files).

    Where another file has the name of a data file already, the weights go under a new name instead.
    """
    if source.path is None:
        save(source.model, path)
        return
    if path.exists() and path.samefile(source.path):
        return
    pairs = [(source.path.parent / name, path.parent / name) for name in source.external]
    missing = [(data, target) for data, target in pairs if not target.exists()]
    if not all(pair in missing or filecmp.cmp(*pair, shallow=False) for pair in pairs):
        save(source.model, path, external=True)
        return
    for data, target in missing:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as temporary:
            shutil.copyfile(data, temporary)
    with atomic(path) as temporary:
        shutil.copyfile(source.path, temporary)


_OWN = "onnxprune."


def _without_own_notes(node: onnx.NodeProto) -> onnx.NodeProto:
    if not any(entry.key.startswith(_OWN) for entry in node.metadata_props):
        return node
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    del plain.metadata_props[:]
    plain.metadata_props.extend(entry for entry in node.metadata_props if not entry.key.startswith(_OWN))
    return plain


def fingerprint(model: onnx.ModelProto) -> str:
    """SHA-256 over the model without its ``onnxprune.*`` metadata and that of its nodes."""
    kept = [(p.key, p.value) for p in model.metadata_props if not p.key.startswith(_OWN)]
    digest = hashlib.sha256(repr(sorted(kept)).encode())
    graph = model.graph
    for field, value in graph.ListFields():
        parts = value if field.name in ("node", "initializer", "input", "output", "value_info") else [value]
        for part in parts:
            plain = _without_own_notes(part) if field.name == "node" else part
            text = (
                plain.SerializeToString(deterministic=True)
                if hasattr(plain, "SerializeToString")
                else repr(plain).encode()
            )
            digest.update(field.name.encode() + text)
    digest.update(repr([(o.domain, o.version) for o in model.opset_import]).encode())
    for function in model.functions:
        digest.update(function.SerializeToString(deterministic=True))
    return digest.hexdigest()
