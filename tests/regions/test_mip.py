"""The count by mixed-integer programming: known answers, and every pattern it finds is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.regions.interior import Definition, interior
from onnxprune.regions.mip import count_by_mip
from onnxprune.regions.network import RegionNetwork
from tests.regions import nets

CASES: dict[str, tuple[RegionNetwork, Definition, int]] = {
    "n=5, d=2": (nets.general_position(5, 2), "cells", 16),
    "three lines through 0": (nets.three_lines(), "cells", 6),
    "zig-zag 3x2": (nets.zigzag(3, 2), "cells", 16),
    "stable units": (nets.stable_and_not(), "cells", 4),
    "touching plane": (nets.touching(), "cells", 1),
    "repeated rows": (nets.repeated(), "cells", 4),
    "fold": (nets.fold(-0.25), "cells", 4),
    "fold, b = 0": (nets.fold(0.0), "cells", 2),
    "x and -x, cells": (nets.mirrored(), "cells", 2),
    "x and -x, patterns": (nets.mirrored(), "patterns", 3),
    "braid n=3": (nets.braid(3), "cells", 6),
}


@pytest.mark.parametrize("name", CASES)
def test_known_answers(name: str) -> None:
    network, definition, expected = CASES[name]
    found = count_by_mip(network, definition)
    assert (found.count, found.complete) == (expected, True)
    assert len(set(found.patterns)) == found.count
    for pattern in found.patterns:
        inside = interior(network, pattern, definition)
        assert inside is not None
        assert network.pattern_at(inside[0]) == pattern


def test_a_unit_that_is_zero_on_a_piece_counts_as_inactive() -> None:
    layers = [([[1.0], [-1.0]], [-0.5, 0.25]), ([[1.0, 0.0], [1.0, -1.0]], [0.0, 0.0])]
    network = RegionNetwork.of_layers(layers, [0.0], [1.0])
    assert count_by_mip(network).count == 3  # x < 1/4, between, x > 1/2


def test_constraints_of_the_domain_cut() -> None:
    network = nets.three_lines()
    half = replace(network, rows=np.array([[1.0, 0.0]]), limits=np.array([-0.1]))
    assert count_by_mip(half).count == 3


def test_an_enumeration_that_is_cut_short_says_so() -> None:
    network = nets.general_position(6, 2)
    assert not count_by_mip(network, budget=0.0).complete
    few = count_by_mip(network, most=5)
    assert (few.count, few.complete) == (5, False)
    assert not count_by_mip(network, stopped=lambda: True).complete
