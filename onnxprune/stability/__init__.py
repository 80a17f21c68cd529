"""States of units over a domain: the cascade that proves them, and how they are counted."""

from onnxprune.stability.proofs import Plan, Proofs, Stage
from onnxprune.stability.states import ACTIVATIONS, LayerStates, State, unit_states

__all__ = ["ACTIVATIONS", "LayerStates", "Plan", "Proofs", "Stage", "State", "unit_states"]
