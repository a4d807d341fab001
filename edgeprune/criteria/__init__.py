"""Criteria that say how much every player matters: ours and the baselines, behind one interface (``base``)."""
