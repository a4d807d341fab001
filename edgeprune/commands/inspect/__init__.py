"""``inspect``."""
