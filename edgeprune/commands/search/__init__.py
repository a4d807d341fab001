"""The search for a network within a budget, or within one point where nobody asked for more."""
