"""Rewrites of an ONNX graph that leave its function alone, before it is quantized."""
