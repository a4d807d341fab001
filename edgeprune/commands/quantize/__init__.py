"""``quantize``."""
