"""Guided corners: points of the domain where linear bounds were attained, as inputs to run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnxprune.domain import Domain, InputSpec
from onnxprune.runtime import Feeds

BATCH = 512
MOST = 4096
"""Corners that are run at most."""


def corner_feeds(
    corners: NDArray[np.float64], spec: InputSpec, domain: Domain, shape: tuple[int, ...]
) -> Iterator[Feeds]:
    """Corners of the only input of a model, rounded into the domain, in batches where the model takes any batch.

    Corners that break a linear constraint of the domain are left out.

    Args:
        corners: One flattened point per row.
        spec: The input.
        domain: Its box; rounding to the input's type never leaves it.
        shape: Shape the model runs with.
    """
    low, high = (np.broadcast_to(v, (1, *shape[1:])).reshape(-1) for v in domain.bounds(spec))
    points = corners[:MOST].astype(spec.dtype)
    for limit, toward in ((low, np.inf), (high, -np.inf)):
        outside = points < limit if toward > 0 else points > limit
        points = np.where(outside, np.nextafter(points, np.asarray(toward, spec.dtype)), points)
    if domain.constraints:
        inside = [domain.contains({spec.name: point[None]}) for point in points]
        points = points[np.array(inside, dtype=bool)]
    free = spec.shape is not None and not isinstance(spec.shape[0], int)
    step = BATCH if free else 1
    for start in range(0, len(points), step):
        part = points[start : start + step]
        yield {spec.name: np.ascontiguousarray(part.reshape(len(part), *shape[1:]))}
