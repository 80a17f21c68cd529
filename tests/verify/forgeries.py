"""Changes of certificates and models that no systematic change of the content makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator


def forgeries() -> Iterator[tuple[str, Callable[[], object]]]:
    """Names, and checks that must be rejected."""
    yield from ()
