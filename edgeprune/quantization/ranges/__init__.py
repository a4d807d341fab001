"""Ranges of activations: what values there are, which of them 8 bits cover, and which scales serve."""
