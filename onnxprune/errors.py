"""The one family of errors: each says what went wrong, where, and what to do about it."""

from __future__ import annotations


class OnnxpruneError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        exit_code: What the command line returns for it.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(f"{what}\n{hint}" if hint else what)
        self.what = what
        self.hint = hint


class InputError(OnnxpruneError):
    """The user's model, domain, option or path cannot be used. Nothing was written."""

    exit_code = 2


class EnvironmentFailure(OnnxpruneError):
    """The surroundings failed: disk full, model not executable, provider missing. Nothing was written."""


class ValidationError(OnnxpruneError):
    """A result differs from the original by more than is allowed. Nothing was written."""


class Interrupted(OnnxpruneError):
    """The user asked twice to stop. Nothing was written."""

    exit_code = 130


class ProofError(OnnxpruneError):
    """A proof and a run of the model contradict each other. Nothing was written."""
