"""The ``rank`` command."""
