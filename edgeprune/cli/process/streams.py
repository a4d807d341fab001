"""Standard streams that may be closed, on a full disk, or left by their reader."""

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
    """Redirect closed streams (``>&-``) to the null device; let others replace unencodable characters.

    A file opened later would otherwise get the descriptor of a closed stream, and libraries that print would
    overwrite it.
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
    """A file that records why a write failed, which the buffer above it forgets."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, and record a failure."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _watched(stream: TextIO) -> TextIO:
    """The stream with failures recorded for ``is_stuck``."""
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
    """Print a line on stderr, escaped; a closed stderr does not end a run."""
    try:
        sys.stderr.write(f"{shown(line)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        silence(sys.stderr)


def flush_result() -> None:
    """Flush the result on stdout.

    Raises:
        BrokenPipeError: the reader left.
        OutputError: stdout cannot be written.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise result_lost(error) from error


def result_lost(error: OSError) -> OutputError:
    """Error for a stdout that cannot be written."""
    return OutputError(
        f"the result cannot be written to standard output ({error.strerror or error}); send it to a file on "
        "a disk with room, or to a reader that stays"
    )


def is_stuck(stream: TextIO) -> bool:
    """Whether a stream failed to write, or cannot flush its buffer."""
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
    """Let a failed stream drop its buffer, which would fail again at exit and change the exit status."""
    with contextlib.suppress(OSError, ValueError):
        _to_nowhere(stream.fileno())


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
