"""The entry point: every outcome becomes an exit status and at most one sentence on stderr."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence

import typer

from edgeprune.cli.app import app
from edgeprune.cli.process import sources, streams
from edgeprune.cli.process.interrupts import Interrupts
from edgeprune.cli.process.session import Session
from edgeprune.errors import (
    BROKEN_PIPE_EXIT_STATUS,
    INTERNAL_EXIT_STATUS,
    EdgepruneError,
    OutputError,
    UsageError,
)
from edgeprune.showing import in_short, shown_sentence
from edgeprune.storage.files import NO_ROOM, no_room
from edgeprune.system.imports import ended_by, first_line
from edgeprune.system.memory import is_out_of_memory

_PROGRAM = "edgeprune"
_REFUSED = frozenset({errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP})
"""Error numbers of path lookups."""
_COMPLETION_VARIABLE = "_EDGEPRUNE_COMPLETE"
_BETWEEN = re.compile(r"[ \t\n\r]+")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: that of the process) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _let_busy_machines_breathe()
    if _COMPLETION_VARIABLE in os.environ:
        app(prog_name=_PROGRAM)
    streams.prepare()
    session = Session(arguments=tuple(arguments))
    status = guarded(lambda: _invoke(arguments, session), session)
    if streams.is_stuck(sys.stderr):
        streams.silence(sys.stderr)
    return status


def _let_busy_machines_breathe() -> None:
    """Make idle OpenMP threads wait briefly instead of spinning, before torch reads the setting.

    Measured on two cores, ranking the digits network: one other busy process made it 4x slower while threads
    spun, 2x with this; alone it took 4.2 s instead of 3.4. A setting of the user's own is left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _invoke(arguments: list[str], session: Session) -> int:
    command = typer.main.get_command(app)
    status = 0
    try:
        with command.make_context(_PROGRAM, arguments, obj=session) as context:
            command.invoke(context)
    except typer.Exit as done:
        status = done.exit_code
    except BaseException as error:
        stuck = streams.is_stuck(sys.stdout)
        if stuck:
            streams.silence(sys.stdout)
        if stuck and isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise streams.result_lost(error) from error
        raise
    streams.flush_result()
    return status


def guarded(action: Callable[[], int], session: Session) -> int:
    """Exit status of an action; any exception is reported in one sentence."""
    interrupts = Interrupts()
    try:
        with interrupts.heeded():
            return action()
    except (KeyboardInterrupt, typer.Abort) as stopped:
        _traceback_if_asked(session)
        _say(f"interrupted{interrupts.by}: {str(stopped) or session.outcome}")
        return interrupts.exit_status
    except (BrokenPipeError, SystemExit) as error:
        # Printing the help turns a broken pipe into SystemExit.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            return _failed(error, session)
        # The reader closed the pipe; buffered output must not fail again at exit.
        streams.silence(sys.stdout)
        return BROKEN_PIPE_EXIT_STATUS
    except BaseException as error:
        if interrupts.came and not isinstance(error, EdgepruneError):
            # An interrupt that a library converted while it was loading.
            _traceback_if_asked(session)
            _say(f"interrupted{interrupts.by}: {session.outcome}")
            return interrupts.exit_status
        return _failed(error, session)


def _failed(error: BaseException, session: Session) -> int:
    """Report the exception that ended a run, and return its exit status."""
    if _is_usage_problem(error):
        return _say_usage(error, session)
    failure = _told(error)
    _traceback_if_asked(session)
    if streams.is_stuck(sys.stdout):
        streams.silence(sys.stdout)
    if failure is None:
        _say(
            f"error: unexpected {type(error).__name__}: {str(error) or 'no message'}; this is a fault in "
            "edgeprune, please run the command again with -vv for the traceback and report it"
        )
        return INTERNAL_EXIT_STATUS
    _say(f"error: {_origin(session)}{failure}")
    return failure.exit_status


def _origin(session: Session) -> str:
    """What gave the value that is refused, where that is not the command line."""
    return f"environment variable {session.refused_variable}: " if session.refused_variable else ""


def _told(error: BaseException) -> EdgepruneError | None:
    """The exception as an error with a message of its own; ``None`` for a fault of edgeprune."""
    if isinstance(error, EdgepruneError):
        return error
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return OutputError(no_room(error))
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
        return UsageError(
            f"{in_short(str(error.filename))} was given, which the system refuses ({error.strerror}); "
            "accepted is a path that this user can read"
        )
    if is_out_of_memory(error):
        return EdgepruneError(
            f"the memory of this machine does not suffice ({first_line(error)}); give fewer or smaller "
            "images (--max-images, --resize), a smaller batch, or take a machine with more"
        )
    if not isinstance(error, Exception):
        return EdgepruneError(
            f"{ended_by(error)}; accepted is code of your own that returns, or that raises an ordinary "
            "exception"
        )
    return None


def _is_usage_problem(error: BaseException) -> bool:
    """Whether the command-line parser raised it (its base class moved between typer's versions)."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _say_usage(error: BaseException, session: Session) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else _PROGRAM
    # Without any argument the parser has shown the help already and has no message.
    if message := error.format_message():  # type: ignore[attr-defined]
        _say(f"error: {_origin(session)}{sources.plain_reason(message)}")
        _say(f"try: {path} --help")
    return int(error.exit_code)  # type: ignore[attr-defined]


def _traceback_if_asked(session: Session) -> None:
    if session.verbosity >= 2:
        streams.say(traceback.format_exc().rstrip())


def _say(sentence: str) -> None:
    streams.say(shown_sentence(" ".join(_BETWEEN.split(sentence.strip()))))
