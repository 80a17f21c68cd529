"""A pass for onnx-ir's pass manager."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxprune.domain import Domain
from onnxprune.errors import OnnxpruneError
from onnxprune.optimizer import optimize


class OptimizePass(ir.passes.FunctionalPass):
    """:func:`onnxprune.optimize` as a pass; ``modified`` is True only where something changed.

    Args:
        domain: As for ``optimize``.
        **options: As for ``optimize``.

    Examples:
        >>> import onnx_ir as ir
        >>> from onnxprune.integrations.onnx_ir_pass import OptimizePass
        >>> pipeline = ir.passes.PassManager([OptimizePass("0:1", goal="size")])
    """

    def __init__(self, domain: Domain | str | list[str] | None = None, **options: Any) -> None:
        super().__init__()
        self.domain, self.options = domain, options

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Optimize a model.

        Raises:
            PassError: It cannot be done; the cause says why.
        """
        try:
            result = optimize(model, self.domain, **self.options)
        except OnnxpruneError as error:
            raise ir.passes.PassError(str(error)) from error
        return ir.passes.PassResult(result.model, result.modified)
