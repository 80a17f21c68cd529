"""What a certificate says, once it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.sides import Anchor
from onnxprune.verify.steps import Constraint, Step

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

STATES = ("inactive", "active", "constant", "unread")


@dataclass(frozen=True)
class Claims:
    """States of units of one layer that the rewrite used.

    Attributes:
        tensor: The pre-activation.
        result: The tensor behind the activation.
        state: "inactive": the activation always gives the same end of its range; "active": it hands the unit on
            unchanged; "constant": the unit never varies; "unread": nothing that follows depends on it.
        units: Rows of the tensor.
        bounds: Per unit the bound that proves the state: an upper one for "inactive", a lower one for "active", the
            width of the values for "constant", 0 for "unread".
        margins: Per unit how far the bound is from the threshold.
        method: The strongest kind of evidence that the bounds rest on, see ``steps.METHODS``; "none" for "unread".
        trust: "certified", or "solver" where that evidence is a solver's word.
    """

    tensor: str
    result: str
    state: str
    units: Indices
    bounds: Floats
    margins: Floats
    method: str
    trust: str


@dataclass(frozen=True)
class Witnesses:
    """Inputs on which the original shows both signs of pre-activations.

    Attributes:
        points: By input, corners of the domain's box: per point and entry whether it is the upper end.
        seen: By pre-activation the entries that are negative at one of the points and positive at another.
    """

    points: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    seen: Mapping[str, Indices] = field(default_factory=dict)


@dataclass(frozen=True)
class Certificate:
    """Everything that a checker needs beside the two models.

    Attributes:
        original: Fingerprint of the original.
        optimized: Fingerprint of the optimized model.
        boxes: Lower and upper ends by input; inputs without a box take all finite values.
        constraints: Linear constraints on the inputs.
        steps: Bounds on tensors of the original, with evidence.
        steps_optimized: The same for the optimized model.
        anchors: What tensors of the original are in the optimized model.
        open_rows: Rows of activations of the optimized model that hand their input on unchanged.
        claims: States of units that the rewrite used.
        deviation: By output how far the optimized model may be off, rounding of constants apart.
        rounding: By output what rounded constants are worth; infinite where nothing bounds that.
        witnesses: Units shown to switch.
    """

    original: str
    optimized: str
    boxes: Mapping[str, tuple[Floats, Floats]]
    constraints: tuple[Constraint, ...]
    steps: tuple[Step, ...]
    steps_optimized: tuple[Step, ...]
    anchors: Mapping[str, Anchor]
    open_rows: Mapping[str, Indices]
    claims: tuple[Claims, ...]
    deviation: Mapping[str, float]
    rounding: Mapping[str, float]
    witnesses: Witnesses = Witnesses()
