"""The set of inputs on which a promise holds, read from texts and files, with samples of it."""

from onnxprune.domain.domain import Domain
from onnxprune.domain.neighbourhood import around
from onnxprune.domain.parsing import parse_domain
from onnxprune.domain.types import Box, Constraint, InputSpec, SampleKind

__all__ = ["Box", "Constraint", "Domain", "InputSpec", "SampleKind", "around", "parse_domain"]
