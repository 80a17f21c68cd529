"""Why a certificate is not accepted."""

from __future__ import annotations

from onnxprune.errors import OnnxpruneError


class Rejected(OnnxpruneError):
    """A certificate does not prove what it says, or says nothing about these models. The text is the reason."""
