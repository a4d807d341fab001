"""The entry point: every outcome becomes an exit status and at most one sentence on stderr."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

import typer

from edgeprune.cli.app import app
from edgeprune.cli.interrupts import interrupts_heeded
from edgeprune.cli.session import Session
from edgeprune.errors import (
    BROKEN_PIPE_EXIT_STATUS,
    INTERNAL_EXIT_STATUS,
    INTERRUPTED_EXIT_STATUS,
    EdgepruneError,
)

_PROGRAM = "edgeprune"
_COMPLETION_VARIABLE = "_EDGEPRUNE_COMPLETE"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: that of the process) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _let_busy_machines_breathe()
    if _COMPLETION_VARIABLE in os.environ:
        app(prog_name=_PROGRAM)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    session = Session(arguments=tuple(arguments))
    return _guarded(lambda: _invoke(arguments, session), session)


def _let_busy_machines_breathe() -> None:
    """Make idle OpenMP threads wait briefly instead of spinning, before torch reads the setting.

    Measured on two cores, ranking the digits network: one other busy process made it 4x slower while threads
    spun, 2x with this; alone it took 4.2 s instead of 3.4. A setting of the user's own is left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _invoke(arguments: list[str], session: Session) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context(_PROGRAM, arguments, obj=session) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    finally:
        sys.stdout.flush()
    return 0


def _guarded(action: Callable[[], int], session: Session) -> int:
    try:
        with interrupts_heeded():
            return action()
    except EdgepruneError as error:
        _traceback_if_asked(session)
        _say(f"error: {error}")
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort) as stopped:
        _traceback_if_asked(session)
        _say(f"interrupted: {str(stopped) or 'nothing was written'}")
        return INTERRUPTED_EXIT_STATUS
    except BrokenPipeError:
        # The reader of a pipe left; what stays in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_EXIT_STATUS
    except Exception as error:
        if _is_usage_problem(error):
            return _say_usage(error)
        _traceback_if_asked(session)
        _say(
            f"error: unexpected {type(error).__name__}: {str(error) or 'no message'}; this is a fault in "
            "edgeprune, please run the command again with -vv for the traceback and report it"
        )
        return INTERNAL_EXIT_STATUS


def _is_usage_problem(error: Exception) -> bool:
    """Whether the command-line parser raised it (its base class moved between typer's versions)."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _say_usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else _PROGRAM
    # Without any argument the parser has shown the help already and has no message.
    if message := error.format_message():  # type: ignore[attr-defined]
        _say(f"error: {message}")
        _say(f"try: {path} --help")
    return int(error.exit_code)  # type: ignore[attr-defined]


def _traceback_if_asked(session: Session) -> None:
    if session.verbosity >= 2:
        traceback.print_exc()


def _say(sentence: str) -> None:
    print(" ".join(sentence.split()), file=sys.stderr)
