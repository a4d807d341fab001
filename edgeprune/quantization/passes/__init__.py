"""Rewrites of an ONNX graph, one a file, as passes on onnx-ir that keep its inputs and outputs."""
