"""ONNX files of anyone: read, checked, loaded and run within limits."""
