"""The ``compress`` command, from a plan to the delivered folder."""
