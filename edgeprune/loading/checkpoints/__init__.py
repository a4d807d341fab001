"""Files of weights: read without running code, found in their containers, and fitted to a module."""
