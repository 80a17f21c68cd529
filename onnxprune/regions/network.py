"""A network as linear regions see it: the units that switch over the domain, everything else folded away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from onnxprune.bounds import Bounds
from onnxprune.bounds.blocks import Block, Blocks
from onnxprune.bounds.unroll import unroll
from onnxprune.domain import Domain
from onnxprune.errors import InputError
from onnxprune.graph.kinds import ModelLike
from onnxprune.operators.interval import Array
from onnxprune.operators.relaxation import Choices
from onnxprune.regions.layers import AffineMap, Folder, Layer, dense_block
from onnxprune.regions.reading import WIDEST_BOX, Reading, read

MOST_UNITS = 4096
"""Unstable units beyond which rows are not written out."""

Pattern = tuple[int, ...]
"""One 0 or 1 per unstable unit, layer by layer."""


@dataclass(frozen=True, eq=False)
class RegionNetwork:
    """A rectified network over a box, perhaps cut by linear constraints.

    Attributes:
        low: Lower ends of the box, shape (inputs,).
        high: Upper ends; where both agree the input is fixed.
        rows: Constraints of the domain, ``rows @ x <= limits``.
        limits: Their right-hand sides.
        layers: From front to back.
        readout: Rows of the outputs over inputs and unstable units, with their bias; None where unknown.
        blocks: What it was made from.
    """

    low: Array
    high: Array
    rows: Array
    limits: Array
    layers: tuple[Layer, ...]
    readout: tuple[Array, Array] | None
    blocks: Blocks

    @staticmethod
    def of_blocks(blocks: Blocks, readout: Block | None = None, *, include_output: bool = False) -> RegionNetwork:
        """From blocks with proved bounds; what these say to be stable is folded away.

        Args:
            blocks: The network, rows taken as exact.
            readout: Rows of the outputs over all columns of the blocks; its bounds are those of the outputs.
            include_output: Let the signs of the outputs cut the domain too.

        Raises:
            InputError: A part is not a rectified affine map, the box is not finite, or there are too many units.
        """
        _check(blocks)
        if include_output and readout is None:
            raise InputError("The outputs are no affine map of the units.", hint="Leave out the signs of outputs.")
        folder = Folder(blocks)
        layers = [folder.layer(block) for block in blocks.blocks]
        final = None if readout is None else folder.rows(readout)
        if include_output and readout is not None:
            layers.append(folder.layer(readout, output=True))
        rows = blocks.rows.toarray().reshape(-1, len(blocks.low))
        return RegionNetwork(blocks.low, blocks.high, rows, blocks.limits, tuple(layers), final, blocks)

    @staticmethod
    def of_layers(
        layers: Sequence[tuple[ArrayLike, ArrayLike]],
        low: ArrayLike,
        high: ArrayLike,
        *,
        readout: tuple[ArrayLike, ArrayLike] | None = None,
        include_output: bool = False,
    ) -> RegionNetwork:
        """From weights of shape (units, units before) and biases, every layer rectified; bounds are intervals.

        Args:
            layers: Weights and biases from front to back.
            low: Lower ends of the box.
            high: Upper ends.
            readout: Weights and biases of the affine outputs.
            include_output: Let the signs of the outputs cut the domain too.
        """
        least, most = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
        blocks: list[Block] = []
        ends, columns = (least, most), len(least)
        everything = [*layers, *([] if readout is None else [readout])]
        for number, (given, bias) in enumerate(everything):
            block = dense_block(f"layer{number}", given, bias, columns, ends)
            blocks.append(block)
            ends, columns = (np.maximum(block.low, 0.0), np.maximum(block.high, 0.0)), columns + block.units
        last = blocks.pop() if readout is not None else None
        empty = sparse.csr_array((0, len(least)))
        network = Blocks(least, most, tuple(blocks), empty, np.zeros(0))
        return RegionNetwork.of_blocks(network, last, include_output=include_output)

    @staticmethod
    def of_model(
        model: ModelLike,
        domain: Domain | str | Sequence[str],
        *,
        bounds: Bounds | None = None,
        include_output: bool = False,
    ) -> RegionNetwork:
        """From an ONNX model over a domain.

        Args:
            model: Path, bytes or ModelProto; never changed.
            domain: As for :func:`onnxprune.optimize`; every input needs a finite box.
            bounds: Proved bounds on its tensors; by default backward linear bounds.
            include_output: Let the signs of the outputs cut the domain too.

        Raises:
            InputError: See :meth:`of_blocks`; or the domain leaves an input unbounded.
        """
        return RegionNetwork.of_reading(read(model, domain, bounds), include_output=include_output)

    @staticmethod
    def of_reading(reading: Reading, *, include_output: bool = False) -> RegionNetwork:
        """From a model that was read.

        Args:
            reading: The model over a domain.
            include_output: Let the signs of the outputs cut the domain too.

        Raises:
            InputError: See :meth:`of_blocks`; or it has maxima, or too many weights.
        """
        unrolled = unroll(reading.net, reading.domain, reading.bounds)
        if unrolled is None:
            raise InputError("Linear regions need a finite box for every input.", hint="Give --domain low:high.")
        maximum = next((k for k in reading.plan.kinds.values() if isinstance(k, Choices)), None)
        if maximum is not None:
            raise InputError("Regions of maxima are bounded, not counted.", hint="Use --method bounds.")
        blocks = _followed(unrolled.network)
        if len(blocks.blocks) < reading.plan.rectifiers:
            raise InputError("The model has too many weights to be written out as rows.", hint="Use --method bounds.")
        hidden = len(blocks.blocks) - len(reading.outputs)
        kept = replace(blocks, blocks=blocks.blocks[:hidden])
        readout = _joined(blocks.blocks[hidden:], kept) if reading.outputs else None
        return RegionNetwork.of_blocks(kept, readout, include_output=include_output)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Units that may switch, per layer."""
        return tuple(layer.size for layer in self.layers)

    @property
    def unstable(self) -> int:
        """Units that may switch."""
        return sum(self.sizes)

    @property
    def units(self) -> int:
        """All units."""
        return sum(layer.units for layer in self.layers)

    @property
    def dimension(self) -> int:
        """Inputs that are not fixed."""
        return int((self.high > self.low).sum())

    @property
    def plain(self) -> bool:
        """Whether every layer reads the one before and nothing else."""
        return all(layer.plain for layer in self.layers)

    def preactivations(self, points: Array) -> Array:
        """Values g of all unstable units, shape (points, unstable)."""
        columns, found = points, [np.zeros((len(points), 0))]
        for layer in self.layers:
            found.append(columns @ layer.weights.T + layer.bias)
            columns = np.concatenate([columns, np.maximum(found[-1], 0.0)], axis=1)
        return np.concatenate(found, axis=1)

    def pattern_at(self, point: Array) -> Pattern:
        """Which unstable units are on at a point."""
        return tuple(int(g > 0) for g in self.preactivations(point[None])[0])

    def affine_maps(self, pattern: Sequence[int]) -> tuple[AffineMap, AffineMap | None]:
        """Pre-activations of all unstable units, and the outputs, as affine maps while a pattern holds."""
        inputs = len(self.low)
        matrix = np.vstack([np.eye(inputs), np.zeros((self.unstable, inputs))])
        shift = np.zeros(inputs + self.unstable)
        rows, constants, at = [np.zeros((0, inputs))], [np.zeros(0)], inputs
        for layer in self.layers:
            rows.append(layer.weights @ matrix[:at])
            constants.append(layer.weights @ shift[:at] + layer.bias)
            on = np.array(pattern[at - inputs : at - inputs + layer.size], dtype=np.float64)
            matrix[at : at + layer.size] = on[:, None] * rows[-1]
            shift[at : at + layer.size] = on * constants[-1]
            at += layer.size
        outputs = None
        if self.readout is not None:
            width = self.readout[0].shape[1]
            outputs = AffineMap(self.readout[0] @ matrix[:width], self.readout[0] @ shift[:width] + self.readout[1])
        return AffineMap(np.concatenate(rows), np.concatenate(constants)), outputs


def _check(blocks: Blocks) -> None:
    ends = np.concatenate([blocks.low, blocks.high])
    if not np.isfinite(ends).all() or np.abs(ends).max(initial=0.0) > WIDEST_BOX:
        raise InputError("Linear regions need a finite box for every input.", hint="Give --domain low:high.")
    if (blocks.low > blocks.high).any():
        raise InputError("The domain is empty.")
    for block in blocks.blocks:
        if not block.exact:
            raise InputError(
                f"'{block.name}' is not piecewise linear: its linear regions cannot be counted.",
                hint="Operators must be affine, or activations such as Relu and LeakyRelu.",
            )
    free = sum(len(block.open) for block in blocks.blocks)
    if free > MOST_UNITS:
        raise InputError(
            f"{free} units may switch over this domain, more than the {MOST_UNITS} that regions are counted for.",
            hint="Take a smaller domain, or --around a point.",
        )


def _followed(blocks: Blocks) -> Blocks:
    """The blocks without columns of which nothing but bounds is known, such as those behind a last Softmax."""
    if all(block.exact for block in blocks.blocks):
        return blocks
    known = np.concatenate([np.ones(len(blocks.low), bool), *(np.full(b.units, b.exact) for b in blocks.blocks)])
    found = []
    for block in blocks.blocks:
        here = known[: block.weights.shape[1]]
        if block.exact and not block.weights[:, np.flatnonzero(~here)].nnz:
            found.append(replace(block, weights=sparse.csr_array(block.weights[:, np.flatnonzero(here)])))
    return replace(blocks, blocks=tuple(found))


def _joined(tail: Sequence[Block], kept: Blocks) -> Block:
    """The rows of all outputs over the columns of the hidden blocks."""
    width = len(kept.low) + sum(block.units for block in kept.blocks)
    rows = sparse.csr_array(sparse.vstack([block.weights[:, :width] for block in tail]))
    parts = [np.concatenate([getattr(b, name) for b in tail]) for name in ("bias", "slack", "low", "high")]
    return Block("outputs", rows, parts[0], parts[1], parts[2], parts[3])
