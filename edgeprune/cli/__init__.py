"""The command line: thin over the public Python API."""

from edgeprune.cli.entry import main

__all__ = ["main"]
