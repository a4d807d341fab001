"""A board's instruction set on this machine: its processor under qemu, with onnxruntime built for it."""
