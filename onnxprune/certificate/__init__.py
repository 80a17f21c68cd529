"""What was proved: claims, and the store that keeps them from one run to the next."""

from onnxprune.certificate.claims import Claim, Record, Refutation, from_line, to_line
from onnxprune.certificate.store import ClaimStore, default_folder, store_key

__all__ = ["Claim", "ClaimStore", "Record", "Refutation", "default_folder", "from_line", "store_key", "to_line"]
