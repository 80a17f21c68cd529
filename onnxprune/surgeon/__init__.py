"""Lossy pruning with second-order information: the Combinatorial Brain Surgeon on ONNX graphs."""
