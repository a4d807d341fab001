"""Estimators of Shapley values, one per file."""
