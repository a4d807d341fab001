"""The drawing of ``inspect --graph``."""
