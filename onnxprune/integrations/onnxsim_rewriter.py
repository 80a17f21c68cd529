"""A rewriter for onnxsim's fixed point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx

from onnxprune.domain import Domain
from onnxprune.optimizer import optimize


def rewriter(
    domain: Domain | str | Sequence[str] | None = None, **options: Any
) -> Callable[[onnx.ModelProto], onnx.ModelProto | bool]:
    """A callable for ``onnxsim.simplify(model, custom_rewriter=...)``.

    onnxsim calls it again as long as anything changes; once nothing does, it answers False. Proofs are remembered in
    between.

    Args:
        domain: As for :func:`onnxprune.optimize`.
        **options: As for :func:`onnxprune.optimize`.

    Examples:
        >>> from onnxprune.integrations.onnxsim_rewriter import rewriter
        >>> import onnxsim
        >>> smaller, ok = onnxsim.simplify("model.onnx", custom_rewriter=rewriter("0:1"))  # doctest: +SKIP
    """

    def rewrite(model: onnx.ModelProto) -> onnx.ModelProto | bool:
        result = optimize(model, domain, **options)
        return result.model if result.modified else False

    return rewrite
