"""Keep libraries from writing on the terminal; failures are raised, and reported in one sentence."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_NOTHING = logging.CRITICAL + 1
_STDERR = 2
_MOST_LOGGED_BYTES = 2**16


@contextlib.contextmanager
def quiet_loggers(*names: str, least: int = _NOTHING) -> Iterator[None]:
    """Silence these loggers (the root logger: ``""``) below the level ``least`` in the block."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(least)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def quiet_streams(*, stdout: bool = False, stderr: bool = False) -> Iterator[None]:
    """Drop warnings, and what is printed to the named streams, in the block."""
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        if stdout:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if stderr:
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Silence all loggers in the block."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def quiet_compiled_code(logger: logging.Logger) -> Iterator[None]:
    """What compiled libraries write to the process's standard error meanwhile is logged as debugging.

    They know no logger, and tell of their own workings what nobody can act on.
    """
    try:
        kept = os.dup(_STDERR)
    except OSError:  # closed: nobody reads it
        yield
        return
    with tempfile.TemporaryFile() as written:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            sys.stderr.flush()
        os.dup2(written.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
            written.seek(0)
            for line in written.read(_MOST_LOGGED_BYTES).decode(errors="replace").splitlines():
                logger.debug("%s", line)
