"""What others need of a model: facts inside the ONNX file, a model card, a bill of materials, a script."""
