"""Training after recovery: distillation, or the user's own function."""
