"""Importance of players: criteria, their registry, and the ranking of a network."""
