"""Which class speaks for which ONNX operator: the built-in ones, then those of installed plug-ins."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from onnxprune.errors import EnvironmentFailure
from onnxprune.operators.base import Operator

GROUP = "onnxprune.operators"
FAMILIES = (
    "activation",
    "affine",
    "arithmetic",
    "axes",
    "cast",
    "comparison",
    "concatenation",
    "constant",
    "convolution",
    "expansion",
    "functions",
    "identity",
    "indexing",
    "normalization",
    "padding",
    "pooling",
    "reduction",
    "reshape",
    "resizing",
    "shape",
    "smooth_activation",
)
STANDARD_DOMAINS = ("", "ai.onnx")


@cache
def registry() -> dict[tuple[str, str], Operator]:
    """Operators by (domain, type). A plug-in may add operators or replace a built-in one.

    An entry point of the group ``onnxprune.operators`` names an :class:`Operator` subclass.
    """
    found: dict[tuple[str, str], Operator] = {}
    for family in FAMILIES:
        module = import_module(f"onnxprune.operators.{family}")
        for cls in module.OPERATORS:
            _register(found, cls())
    for entry in entry_points(group=GROUP):
        cls = load_plugin(entry)
        if not (isinstance(cls, type) and issubclass(cls, Operator)):
            raise EnvironmentFailure(
                f"Plug-in operator '{entry.name}' ({entry.value}) is not a subclass of onnxprune.operators.Operator.",
                hint="Fix or uninstall the package that provides it.",
            )
        _register(found, cls())
    return found


def load_plugin(entry: EntryPoint) -> object:
    """The object an entry point names.

    Raises:
        EnvironmentFailure: It cannot be imported.
    """
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        if entry.value.startswith("onnxprune."):
            raise EnvironmentFailure(
                f"Python runs in the source tree of onnxprune and does not see its installed parts ({entry.value}).",
                hint="Install it with pip install -e . or start Python in another folder.",
            ) from error
        raise EnvironmentFailure(
            f"Plug-in '{entry.name}' ({entry.value}) cannot be imported: {error}.",
            hint="Fix or uninstall the package that provides it.",
        ) from error


def _register(found: dict[tuple[str, str], Operator], operator: Operator) -> None:
    for op_type in operator.op_types:
        found[operator.domain, op_type] = operator


def operator_for(op_type: str, domain: str | None) -> Operator | None:
    """The class that speaks for an operator, or None if it is opaque."""
    normalized = "" if (domain or "") in STANDARD_DOMAINS else str(domain)
    return registry().get((normalized, op_type))
