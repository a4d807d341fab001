"""The ``quantize`` command."""
