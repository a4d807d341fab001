"""How much every player matters: criteria, their registry, and the ranking of a network."""
