"""The command line: a thin layer over the public Python API."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: that of the process) and return its exit status."""
    try:
        from edgeprune.cli.entry import main as invoke
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing was written\n")
        return _INTERRUPTED
    return invoke(argv)


def run() -> int:
    """Entry point of the process: signals are ignored once the exit status is known."""
    status = main()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    return status


__all__ = ["main", "run"]
