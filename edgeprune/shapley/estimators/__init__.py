"""One estimator of Shapley values a file."""
