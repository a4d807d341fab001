"""Which channels leave together: one walk over the graph, one rule per kind of op."""
