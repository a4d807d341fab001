"""Reports and files of ``rank``."""
