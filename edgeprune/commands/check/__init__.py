"""The ``check`` command."""
