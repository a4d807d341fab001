"""``verify``."""
