"""Find coupled channels, which are removed together: one graph traversal, one rule per op type."""
