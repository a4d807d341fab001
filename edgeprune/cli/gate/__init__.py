"""The commands ``compare`` and ``check``."""
