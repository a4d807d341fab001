"""Commands on what a run has written: ``pick``, ``report`` and ``bundle``."""
