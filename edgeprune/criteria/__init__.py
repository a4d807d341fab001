"""Criteria for how much every player matters: ours and the baselines, one interface (``base``)."""
