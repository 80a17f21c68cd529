"""onnxprune inside other tools: passes of onnx-ir and Olive, and a rewriter for onnxsim.

Each module needs the package it is named after, and nothing imports them but the user.
"""
