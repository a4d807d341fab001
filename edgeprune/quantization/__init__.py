"""8-bit and 16-bit ONNX files from 32-bit ones."""
