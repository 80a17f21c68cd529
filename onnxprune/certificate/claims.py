"""What was proved about a unit, what refutes a state of it, and both as a line of text."""

from __future__ import annotations

import json
import math
import operator
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

Side = Literal["upper", "lower"]
Sign = Literal["positive", "negative"]
Method = Literal["interval", "linear", "split", "lp", "mip"]
Trust = Literal["certified", "solver"]


@dataclass(frozen=True)
class Claim:
    """A proved bound on the pre-activation of a unit over the domain, in real arithmetic.

    Attributes:
        layer: Label of the unit's layer in the tidied graph.
        unit: Index of the unit.
        side: "upper": pre-activation <= bound; "lower": pre-activation >= bound.
        bound: A finite number.
        method: The stage that proved it.
        trust: "certified" can be checked again by simple arithmetic, "solver" rests on a MIP solver's word.
        evidence: What a checker needs beyond the graph and the domain; JSON-able, with lists for sequences.

    Raises:
        ValueError: A field is not what it should be.
    """

    layer: str
    unit: int
    side: Side
    bound: float
    method: Method
    trust: Trust
    evidence: dict[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Refuse what is no claim."""
        _check_place(self)
        _check_number(self, "bound")
        _check_choice(self, "side", Side)
        _check_choice(self, "method", Method)
        _check_choice(self, "trust", Trust)
        if not isinstance(self.evidence, dict | None):
            raise ValueError(f"evidence cannot be {self.evidence!r}: it is a dictionary or None")

    @property
    def strength(self) -> float:
        """Greater for the tighter one of two claims about the same side."""
        return -self.bound if self.side == "upper" else self.bound


@dataclass(frozen=True)
class Refutation:
    """The real network was run on an input of the domain, and a unit's pre-activation took a sign.

    Attributes:
        layer: Label of the unit's layer in the tidied graph.
        unit: Index of the unit.
        side: "positive": the unit is not stably inactive; "negative": it is not stably active.
        value: The pre-activation seen; finite and of that sign.

    Raises:
        ValueError: A field is not what it should be.
    """

    layer: str
    unit: int
    side: Sign
    value: float

    def __post_init__(self) -> None:
        """Refuse what refutes nothing."""
        _check_place(self)
        _check_number(self, "value")
        _check_choice(self, "side", Sign)
        if not (self.value > 0 if self.side == "positive" else self.value < 0):
            raise ValueError(f"value {self.value!r} is not {self.side}")

    @property
    def strength(self) -> float:
        """Greater for the clearer one of two refutations of the same side."""
        return abs(self.value)


Record: TypeAlias = Claim | Refutation
"""What a store keeps."""

_KINDS: dict[str, type[Claim] | type[Refutation]] = {"claim": Claim, "refutation": Refutation}


def to_line(record: Record) -> str:
    """One line of ASCII text without its line end; numbers survive the way exactly.

    Raises:
        TypeError: The evidence is not JSON-able.
    """
    values = {f.name: value for f in fields(record) if (value := getattr(record, f.name)) is not None}
    return json.dumps({"kind": type(record).__name__.lower(), **values}, separators=(",", ":"))


def from_line(line: str) -> Record:
    """The record that `to_line` wrote.

    Raises:
        ValueError: It is none, or one with fields unknown to this version.
    """
    try:
        values = json.loads(line)
        return _KINDS[values.pop("kind")](**values)
    except (TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not a record ({error!r})") from None


def _check_place(record: Record) -> None:
    if not isinstance(record.layer, str):
        raise ValueError(f"layer cannot be {record.layer!r}: it is a text")
    unit = operator.index(record.unit)
    if unit < 0:
        raise ValueError(f"unit cannot be {unit}: it is an index")
    object.__setattr__(record, "unit", unit)  # NumPy's integers are not JSON-able


def _check_number(record: Record, name: str) -> None:
    number = float(getattr(record, name))
    if not math.isfinite(number):
        raise ValueError(f"{name} cannot be {number}: it is finite")
    object.__setattr__(record, name, number)


def _check_choice(record: Record, name: str, choices: Any) -> None:
    if getattr(record, name) not in get_args(choices):
        raise ValueError(f"{name} cannot be {getattr(record, name)!r}: it is one of {', '.join(get_args(choices))}")
