"""Which weights to remove: selection, exact blocks and allocation on plain arrays, without any graph."""

from onnxprune.surgeon.selection.allocation import Allocation, LayerChoices, allocate
from onnxprune.surgeon.selection.arrays import removal_count
from onnxprune.surgeon.selection.block import Block, BlockResult, block_of, improve_block, interacting
from onnxprune.surgeon.selection.block_milp import prove_block
from onnxprune.surgeon.selection.block_search import solve_block
from onnxprune.surgeon.selection.cbs_select import Selected, cbs_select, cbs_update
from onnxprune.surgeon.selection.chita import chita
from onnxprune.surgeon.selection.exact_refit import best_removals
from onnxprune.surgeon.selection.greedy import Additions, Removals, greedy_additions, greedy_removals
from onnxprune.surgeon.selection.magnitude import (
    magnitude,
    magnitude_per_tensor,
    randomised_magnitude,
    without_smallest,
)
from onnxprune.surgeon.selection.neighbourhood import improve_by_blocks
from onnxprune.surgeon.selection.patterns import follows_pattern, improve_patterns, pattern_removals
from onnxprune.surgeon.selection.refit import best_weights, refit, refit_cost
from onnxprune.surgeon.selection.repair import repair_by_blocks
from onnxprune.surgeon.selection.row_shares import share_removals
from onnxprune.surgeon.selection.rows import select_in_rows
from onnxprune.surgeon.selection.swaps import Improved, improve_by_swaps
from onnxprune.surgeon.selection.units import Reader, Units, expand, greedy_units, improve_units, units_cost

__all__ = [
    "Additions",
    "Allocation",
    "Block",
    "BlockResult",
    "Improved",
    "LayerChoices",
    "Reader",
    "Removals",
    "Selected",
    "Units",
    "allocate",
    "best_removals",
    "best_weights",
    "block_of",
    "cbs_select",
    "cbs_update",
    "chita",
    "expand",
    "follows_pattern",
    "greedy_additions",
    "greedy_removals",
    "greedy_units",
    "improve_block",
    "improve_by_blocks",
    "improve_by_swaps",
    "improve_patterns",
    "improve_units",
    "interacting",
    "magnitude",
    "magnitude_per_tensor",
    "pattern_removals",
    "prove_block",
    "randomised_magnitude",
    "refit",
    "refit_cost",
    "removal_count",
    "repair_by_blocks",
    "select_in_rows",
    "share_removals",
    "solve_block",
    "units_cost",
    "without_smallest",
]
