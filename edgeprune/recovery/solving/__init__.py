"""Solve one layer after another by least squares."""
