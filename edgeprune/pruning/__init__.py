"""Remove channels from a graph, or switch them off in place."""
