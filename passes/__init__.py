"""The rewrite passes, one file each; the engine finds them through the entry-point group ``onnxprune.passes``."""
