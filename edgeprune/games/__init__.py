"""The network as a cooperative game: what it loses without some channels or blocks."""
