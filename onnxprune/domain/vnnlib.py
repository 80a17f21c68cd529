"""Input sets from VNN-LIB 1.0 files (the subset of SMT-LIB that VNN-COMP uses).

Variables ``X_i`` are the entries of all inputs, row-major and in graph order; a comparison that mentions an
output ``Y_i`` says nothing about them. Decimals are read exactly and rounded so that the set can only grow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow, localcontext
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxprune.domain.rounding import DOWNWARD, UPWARD, outward
from onnxprune.errors import InputError

_TOKEN = re.compile(r";[^\n]*|[()]|[^\s();]+")
_VARIABLE = re.compile(r"X_(\d+)")
_HINT = "Use VNN-LIB 1.0: declare-const, assert, and, or, <=, >=, =, +, -, * over X_i and Y_i."
# Sums and products are exact or refused; 2000 digits hold any sum of float64 numbers.
_EXACT = Context(prec=2000, traps=[Inexact, InvalidOperation, Overflow])


@dataclass(frozen=True)
class LinearConstraint:
    """``sum of coefficient * X_index <= bound``; ``terms`` holds two or more pairs (index, coefficient)."""

    terms: tuple[tuple[int, float], ...]
    bound: float


@dataclass(frozen=True, eq=False)
class InputProperty:
    """What a file says about its inputs: bounds, one entry per X_i, and linear constraints.

    Bounds are the hull of all alternatives, whose own constraints are left out: the set contains the file's.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    constraints: tuple[LinearConstraint, ...]


def read(path: str | PathLike[str]) -> InputProperty:
    """Read a file.

    Raises:
        InputError: The file is missing, no text, or not in the supported subset.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.", hint="Check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"Cannot read {path}: it is no text file.", hint=_HINT) from error
    return parse(text, source=str(path))


def parse(text: str, *, source: str = "VNN-LIB text") -> InputProperty:
    """Read a property from its text; ``source`` names it in errors (InputError)."""
    with localcontext(_EXACT):
        reader = _reader_of(text, source)
        count = len(reader.inputs)
        if not count or max(reader.inputs) != count - 1:
            found = f"{count} of the variables X_0 to X_{max(reader.inputs)}" if count else "no variables X_i"
            raise InputError(f"{source}: {found} declared.", hint="Declare X_0, X_1, ... without gaps.")
        return reader.result()


def _reader_of(text: str, source: str) -> _Reader:
    reader = _Reader()
    stack: list[list[_Node]] = []
    for position, token in enumerate(_TOKEN.findall(text)):
        try:
            if token == "(":
                stack.append([])
            elif token == ")" and stack:
                form = stack.pop()
                if stack:
                    stack[-1].append(reader.reduce(form))
                else:
                    reader.command(form)
            elif token[0] == ";":
                continue
            elif stack:
                stack[-1].append(token)
            else:
                raise _MalformedError(f"'{token}' stands outside parentheses")
        except (_MalformedError, DecimalException) as error:
            what = str(error) if isinstance(error, _MalformedError) else "a number is out of range"
            start = next(islice(_TOKEN.finditer(text), position, None)).start()
            line = text.count("\n", 0, start) + 1
            raise InputError(f"{source}, line {line}: {what}.", hint=_HINT) from error
    if stack:
        raise InputError(f"{source}: it ends before all parentheses are closed.", hint=_HINT)
    return reader


class _MalformedError(Exception):
    """The text is not in the subset; the caller adds the line."""


class _Affine(NamedTuple):
    """A sum of coefficients times X variables and a constant."""

    coefficients: dict[int, Decimal]
    constant: Decimal


class _Opaque(NamedTuple):
    """A term with an output variable in it."""


class _Condition(NamedTuple):
    """A set that contains all inputs which fulfil a formula: bounds by variable, and rows ``sum <= 0``."""

    bounds: dict[int, tuple[float, float]]
    rows: list[_Affine]


_Node = str | _Affine | _Opaque | _Condition
_OPAQUE = _Opaque()
_ZERO, _ONE = Decimal(0), Decimal(1)
_FREE = (-math.inf, math.inf)


class _Reader:
    """Reduces each closed parenthesis to a value, so that nesting needs no recursion."""

    def __init__(self) -> None:
        self.inputs: set[int] = set()
        self._variables: dict[str, _Affine | _Opaque] = {}
        self._known = _Condition({}, [])

    def command(self, form: list[_Node]) -> None:
        """Carry out a form that stands in no other."""
        match form:
            case ["declare-const", str(name), str(_)]:
                match = _VARIABLE.fullmatch(name)
                self._variables[name] = _Affine({int(match[1]): _ONE}, _ZERO) if match else _OPAQUE
                if match:
                    self.inputs.add(int(match[1]))
            case ["assert", _Condition() as condition]:
                _require(self._known, condition)
            case _:
                raise _MalformedError(f"unsupported command {_show(form)}")

    def reduce(self, form: list[_Node]) -> _Node:
        """The value of a form inside another."""
        match form:
            case [("<=" | ">=" | "=") as operator, left, right]:
                return _compare(operator, self._term(left), self._term(right))
            case [("and" | "or") as operator, _, *_]:
                parts = [part for part in form[1:] if isinstance(part, _Condition)]
                if len(parts) == len(form) - 1:
                    return _conjunction(parts) if operator == "and" else _hull(parts)
            case [("+" | "-" | "*") as operator, first, *rest]:
                terms = [self._term(node) for node in (first, *rest)]
                known = [term for term in terms if isinstance(term, _Affine)]
                return _ARITHMETIC[operator](known) if len(known) == len(terms) else _OPAQUE
        raise _MalformedError(f"unsupported expression {_show(form)}")

    def result(self) -> InputProperty:
        """The set of all inputs that the assertions allow."""
        bounds = [self._known.bounds.get(index, _FREE) for index in range(len(self.inputs))]
        lower, upper = np.array(bounds, dtype=np.float64).T.copy()
        rows = [_rounded(row, lower, upper) for row in self._known.rows]
        return InputProperty(lower, upper, tuple(row for row in rows if row is not None))

    def _term(self, node: _Node) -> _Affine | _Opaque:
        if isinstance(node, str):
            known = self._variables.get(node)
            return _Affine({}, _number(node)) if known is None else known
        if isinstance(node, _Condition):
            raise _MalformedError("a comparison stands where a number is expected")
        return node


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except DecimalException:
        number = Decimal("nan")
    if not number.is_finite():
        raise _MalformedError(f"'{text}' is neither a number nor a declared variable")
    return number


def _show(form: list[_Node]) -> str:
    head = form[0] if form else ""
    return f"'({head} ...)' with {len(form) - 1} operands" if isinstance(head, str) and head else "'(...)'"


def _sum(terms: list[_Affine]) -> _Affine:
    coefficients: dict[int, Decimal] = {}
    for term in terms:
        for index, coefficient in term.coefficients.items():
            coefficients[index] = coefficients.get(index, _ZERO) + coefficient
    return _Affine(coefficients, sum((term.constant for term in terms), _ZERO))


def _scale(term: _Affine, factor: Decimal) -> _Affine:
    return _Affine({index: factor * c for index, c in term.coefficients.items()}, factor * term.constant)


def _difference(terms: list[_Affine]) -> _Affine:
    negated = [_scale(term, -_ONE) for term in terms]
    return negated[0] if len(terms) == 1 else _sum([terms[0], *negated[1:]])


def _product(terms: list[_Affine]) -> _Affine:
    result = _Affine({}, _ONE)
    for term in terms:
        if result.coefficients and term.coefficients:
            raise _MalformedError("a product of two input variables is not linear")
        result = _scale(result, term.constant) if result.coefficients else _scale(term, result.constant)
    return result


_ARITHMETIC: dict[str, Callable[[list[_Affine]], _Affine]] = {"+": _sum, "-": _difference, "*": _product}


def _compare(operator: str, left: _Affine | _Opaque, right: _Affine | _Opaque) -> _Condition:
    if isinstance(left, _Opaque) or isinstance(right, _Opaque):
        return _Condition({}, [])
    if operator == "=":
        return _conjunction([_compare("<=", left, right), _compare(">=", left, right)])
    if operator == ">=":
        left, right = right, left
    coefficients = dict(left.coefficients)
    for index, coefficient in right.coefficients.items():
        coefficients[index] = coefficients.get(index, _ZERO) - coefficient
    return _at_most({index: c for index, c in coefficients.items() if c}, right.constant - left.constant)


def _at_most(coefficients: dict[int, Decimal], limit: Decimal) -> _Condition:
    if len(coefficients) > 1:
        return _Condition({}, [_Affine(coefficients, -limit)])
    for index, coefficient in coefficients.items():
        if coefficient > 0:
            return _Condition({index: (-math.inf, outward(UPWARD.divide(limit, coefficient), up=True))}, [])
        return _Condition({index: (outward(DOWNWARD.divide(limit, coefficient), up=False), math.inf)}, [])
    if limit < 0:
        raise _MalformedError("a comparison of numbers that never holds")
    return _Condition({}, [])


def _require(known: _Condition, condition: _Condition) -> None:
    """Intersect ``known``, in place, with another condition."""
    for index, (lower, upper) in condition.bounds.items():
        low, high = known.bounds.get(index, _FREE)
        known.bounds[index] = (max(low, lower), min(high, upper))
    known.rows.extend(condition.rows)


def _conjunction(parts: list[_Condition]) -> _Condition:
    result = _Condition({}, [])
    for part in parts:
        _require(result, part)
    return result


def _hull(parts: list[_Condition]) -> _Condition:
    first, *others = parts
    if not others:
        return first
    bounds = dict(first.bounds)
    for part in others:
        bounds = {
            index: (min(low, part.bounds[index][0]), max(high, part.bounds[index][1]))
            for index, (low, high) in bounds.items()
            if index in part.bounds
        }
    return _Condition(bounds, [])


def _rounded(row: _Affine, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> LinearConstraint | None:
    """A float64 row that excludes nothing more; None if an inexact coefficient meets a free variable."""
    terms = tuple((index, float(coefficient)) for index, coefficient in row.coefficients.items())
    if any(math.isinf(coefficient) for _, coefficient in terms):
        return None
    bound = -row.constant
    for index, coefficient in terms:
        if error := abs(row.coefficients[index] - Decimal(coefficient)):
            magnitude = max(abs(lower[index]), abs(upper[index]))
            bound = UPWARD.add(bound, UPWARD.multiply(error, Decimal(float(magnitude))))
    limit = outward(bound, up=True)
    return LinearConstraint(terms, limit) if math.isfinite(limit) else None
