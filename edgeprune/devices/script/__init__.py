"""Scripts that run on devices."""
