"""Side-by-side benchmark of onnxprune and its peers; see README.md."""
