"""The standard streams, whoever is at their other end: nobody, a full disk, or a reader that left."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO

from edgeprune.errors import OutputError
from edgeprune.showing import shown

_DESCRIPTORS = {"stdin": 0, "stdout": 1, "stderr": 2}


def prepare() -> None:
    """Let closed streams (``>&-``) take everything and show nothing, and others replace what they cannot say.

    A file opened later would otherwise get the number of a closed stream, and be written over by libraries
    that print.
    """
    for name, descriptor in _DESCRIPTORS.items():
        try:
            os.fstat(descriptor)
        except OSError:
            _to_nowhere(descriptor)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _watched(sys.__stdout__)


class _WatchedFile(io.FileIO):
    """A file that remembers why it could not be written, which the buffer above it forgets."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """As of any file."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _watched(stream: TextIO) -> TextIO:
    """The same stream, of which ``is_stuck`` can tell that it failed."""
    try:
        raw = _WatchedFile(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.isatty(),
    )


def say(line: str) -> None:
    """A line on stderr, harmless whatever is in it; where nobody reads it, that is no reason to end a run."""
    try:
        sys.stderr.write(f"{shown(line)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        silence(sys.stderr)


def flush_result() -> None:
    """Hand what was printed on stdout to its reader.

    Raises:
        BrokenPipeError: the reader left.
        OutputError: stdout does not take it.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise result_lost(error) from error


def result_lost(error: OSError) -> OutputError:
    """The failure of a stdout that takes nothing."""
    return OutputError(
        f"the result cannot be written to standard output ({error.strerror or error}); send it to a file on "
        "a disk with room, or to a reader that stays"
    )


def is_stuck(stream: TextIO) -> bool:
    """Whether a stream failed to pass something on, or holds something that it cannot get rid of."""
    if getattr(getattr(getattr(stream, "buffer", None), "raw", None), "failure", None) is not None:
        return True
    try:
        stream.flush()
    except OSError:
        return True
    except ValueError:
        return False  # closed
    return False


def silence(stream: TextIO) -> None:
    """Let a stream that failed drop the rest, which would fail again at exit and change the exit status."""
    with contextlib.suppress(OSError, ValueError):
        _to_nowhere(stream.fileno())


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
