"""Search for a network within a budget, or by default within a drop of one point."""
