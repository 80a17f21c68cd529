"""Operators that hand on what they get: Identity, and Dropout at inference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.elementwise import Elementwise, Unary, given, unary_channels
from onnxprune.operators.interval import Interval
from onnxprune.operators.movement import InOrder


class Identity(InOrder, Unary):
    """x."""

    op_types = ("Identity",)
    homogeneous = True

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Unchanged."""
        return x

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """Everything."""
        return -np.inf, np.inf


class Dropout(InOrder, Elementwise):
    """x at inference; the mask is not bounded, and neither is anything in training mode."""

    op_types = ("Dropout",)
    homogeneous = True

    @staticmethod
    def _inference(node: NodeView) -> bool:
        if node.opset < 7:
            return bool(node.attr("is_test", 0))
        if node.opset < 12 or not node.has_input(2):
            return True
        training = node.constant(2)
        return training is not None and not training.any()

    def passes(self, node: NodeView) -> bool:
        """At inference."""
        return self._inference(node)

    def interval(self, node: NodeView, inputs: Inputs) -> Sequence[Interval] | None:
        """Unchanged, then the mask."""
        mask = [Interval.everything()] * (node.n_outputs - 1)
        return [given(inputs, 0), *mask] if self._inference(node) else None

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Every axis index for index, the mask's too."""
        return self._inference(node) and unary_channels(node, links)

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """Everything, at inference."""
        return (-np.inf, np.inf) if self._inference(node) else None


OPERATORS: tuple[type[Operator], ...] = (
    Identity,
    Dropout,
)
