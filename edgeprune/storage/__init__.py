"""Atomic files and folders, their ownership, and reading of untrusted files."""
