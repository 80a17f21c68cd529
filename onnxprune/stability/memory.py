"""What earlier runs proved about the same graph over the same domain, and what this one adds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.certificate import Claim, ClaimStore, Record, Refutation
from onnxprune.certificate.claims import Method, Side, Trust
from onnxprune.stability.ledger import SIDES, Ledger, Place, Question

SIDE: Mapping[int, Side] = {1: "upper", -1: "lower"}


class Memory:
    """Passes claims between a ledger and a store.

    Claims name a place of the ledger and an entry of its tensor; bounds are those on the tensor.

    Args:
        ledger: The ledger.
        store: The store; None remembers nothing.
    """

    def __init__(self, ledger: Ledger, store: ClaimStore | None) -> None:
        self._ledger = ledger
        self._store = store
        self._records: list[Record] = [] if store is None else store.load()

    def recall(self, trust: Trust) -> set[Question]:
        """Take over what is on record; questions that a linear programme has answered as well as it can."""
        places = {place.name: (index, place) for index, place in enumerate(self._ledger.places)}
        asked = set()
        for record in self._records:
            index, place = places.get(record.layer, (-1, None))
            if place is None or record.unit >= len(place.low):
                continue
            entry = np.array([record.unit])
            if isinstance(record, Refutation):
                place.refuted[1 if record.side == "positive" else -1][place.units[entry]] = True
            elif record.trust == trust:
                sign = 1 if record.side == "upper" else -1
                least, most = (-np.inf, record.bound) if sign > 0 else (record.bound, np.inf)
                self._ledger.narrow(place, entry, np.array([least]), np.array([most]))
                if record.method == "lp":
                    asked.add(Question(index, record.unit, sign))
        return asked

    def claim(self, question: Question, method: Method, trust: Trust) -> None:
        """Keep the bound that answers a question, or comes nearest to it."""
        if self._store is None:
            return
        place = self._ledger.places[question.place]
        bound = place.high[question.entry] if question.sign > 0 else place.low[question.entry]
        if np.isfinite(bound):
            side = SIDE[question.sign]
            self._store.append([Claim(place.name, question.entry, side, float(bound), method, trust)])

    def refute(self, question: Question) -> None:
        """Keep that a run answered a question with no, if it certainly did."""
        if self._store is None:
            return
        place = self._ledger.places[question.place]
        reached = place.reached[1] if question.sign > 0 else place.reached[0]
        beyond = question.sign * (reached - place.knot) > 0
        entries = np.flatnonzero(beyond & (place.units == place.units[question.entry]))
        for entry in entries[:1]:
            value = float(reached[entry] - place.knot[entry])
            self._store.append(
                [Refutation(place.name, int(entry), "positive" if question.sign > 0 else "negative", value)]
            )

    def proved(self, method: Method, trust: Trust, before: Mapping[str, Place]) -> None:
        """Keep all sides that are proved now and were not before."""
        if self._store is None:
            return
        records: list[Record] = []
        for place in self._ledger.places:
            for sign in SIDES:
                ends = place.high if sign > 0 else place.low
                new = place.proved(sign) & ~before[place.name].proved(sign) & np.isfinite(ends)
                records += [
                    Claim(place.name, int(entry), SIDE[sign], float(ends[entry]), method, trust)
                    for entry in np.flatnonzero(new)
                ]
        self._store.append(records)
