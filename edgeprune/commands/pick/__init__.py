"""The ``pick`` command."""
