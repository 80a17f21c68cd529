"""Every check is needed: without it, something that was rejected is accepted, or ends in an error."""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest

from onnxprune.verify.reasons import Rejected
from tests.verify.changes import changes
from tests.verify.forgeries import forgeries
from tests.verify.mutation import FOLDER, Site, sites, without
from tests.verify.support import handed_on_case, parallel_case, proved_by_cases, solver_case, split_case

CASES = (split_case, proved_by_cases, parallel_case, handed_on_case, solver_case)
TRIED = 12
ELSEWHERE = ("reading.py",)
"""What :func:`read` looks at is damaged on disk, in ``test_tampering.py``."""
OTHERWISE = {
    # A model that is no graph: nothing could be compared, and what follows stops with an error of its own.
    ("network.py", "_in_order"),
}


@cache
def rejected() -> dict[Site, list[Callable[[], object]]]:
    """What is rejected, by the place where that happens."""
    found: dict[Site, list[Callable[[], object]]] = defaultdict(list)
    attempts: list[Callable[[], object]] = [attempt for _, attempt in forgeries()]
    for make in CASES:
        case = make()
        attempts += [partial(case.check, change.apply(case.content)) for change in changes(case.content)]
    for attempt in attempts:
        try:
            attempt()
        except Rejected as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            name = Path(last.filename).name
            where = [site for site in sites() if site.file == name and site.line <= (last.lineno or 0)]
            if where and FOLDER in Path(last.filename).parents:
                found[max(where, key=lambda site: site.line)].append(attempt)
    return found


def needed(site: Site) -> bool:
    with without(site):
        for attempt in rejected().get(site, [])[:TRIED]:
            try:
                attempt()
            except Rejected:
                continue
            except Exception:  # any error shows that the check stood in front of it
                return True
            return True
    return False


CHECKS = [s for s in sites() if s.file not in ELSEWHERE and (s.file, s.function[-1]) not in OTHERWISE]


@pytest.mark.parametrize("site", CHECKS, ids=lambda site: f"{site.file}-{'.'.join(site.function)}-{site.line}")
def test_a_check_is_needed(site: Site) -> None:
    if site not in rejected():
        pytest.fail("nothing that is tried is rejected here")
    if not needed(site):
        pytest.fail("everything that is rejected here is rejected elsewhere, too")
