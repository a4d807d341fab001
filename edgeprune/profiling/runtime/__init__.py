"""The graph that onnxruntime makes of a file, which is what runs."""
