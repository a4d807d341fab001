"""``compress`` from a plan to the delivered folder."""
