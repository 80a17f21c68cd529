"""Puts the seal of a certificate into the model that it is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from onnxprune.certificate.writing import arrays_name, content, write
from onnxprune.verify.checker import KEY

if TYPE_CHECKING:
    from onnxprune.optimizer import Result


def sealed(result: Result[onnx.ModelProto], path: Path) -> onnx.ModelProto:
    """Write the certificate of a result; the result's model, with the certificate's seal in its metadata.

    A model that nothing was changed in stays as it is, byte for byte.
    """
    assert result.certificate is not None
    found, data = content(result.certificate.certificate, arrays_name(path))
    write(found, data, path)
    if not result.modified:
        return result.model
    model = onnx.ModelProto()
    model.CopyFrom(result.model)
    entries = {p.key: p.value for p in model.metadata_props} | {KEY: str(found["seal"])}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, entries)
    return model
