"""Keep libraries from writing on the terminal; failures are raised, and reported in one sentence."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator

_NOTHING = logging.CRITICAL + 1


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
def quiet_native_stderr() -> Iterator[None]:
    """Drop what compiled libraries write to the standard error of the process in the block."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no standard error
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Silence all loggers in the block."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
