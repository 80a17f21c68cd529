"""A pass for Olive, and the entry of its package configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.passes import Pass
from olive.passes.onnx.common import get_external_data_config, model_proto_to_olive_model
from olive.passes.pass_config import BasePassConfig, PassConfigParam

from onnxprune.optimizer import optimize


class OnnxPrune(Pass):  # type: ignore[misc] # Olive has no types
    """:func:`onnxprune.optimize` as a pass of Olive."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            "domain": PassConfigParam(
                type_=list[str], default_value=None, description="Ranges of the inputs, such as 0:1 or x=-1:1."
            ),
            "options": PassConfigParam(
                type_=dict[str, Any], default_value=None, description="Further options of onnxprune.optimize."
            ),
            **get_external_data_config(),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        settings: Any = config
        path = resolve_onnx_path(output_model_path, Path(model.model_path).name)
        result = optimize(model.model_path, settings.domain, **(settings.options or {}))
        return model_proto_to_olive_model(result.model, path, config)


def package_config() -> dict[str, Any]:
    """What Olive's package configuration needs to find the pass: merge it into ``passes`` of your own.

    Examples:
        >>> from onnxprune.integrations.olive_pass import package_config
        >>> package_config()["passes"]["OnnxPrune"]["module_path"]
        'onnxprune.integrations.olive_pass.OnnxPrune'
    """
    everything = {
        name: ["*"]
        for name in (
            "supported_providers",
            "supported_accelerators",
            "supported_precisions",
        )
    }
    return {"passes": {OnnxPrune.__name__: {"module_path": f"{__name__}.{OnnxPrune.__name__}", **everything}}}
