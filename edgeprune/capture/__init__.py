"""Capture a module as a functional graph with a dynamic batch, in canonical form."""
