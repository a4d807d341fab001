"""Rewrites of ONNX graphs that any reader may need."""
