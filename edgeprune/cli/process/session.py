"""State of one invocation of the command line: verbosity and output."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgeprune.cli.process import streams
from edgeprune.cli.process.variables import unknown_variables
from edgeprune.errors import UsageError
from edgeprune.showing import plain, plain_values, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

_NOISY_LOGGERS = ("torch", "torch.onnx", "torch.export", "onnx", "onnx_ir", "onnxscript", "onnxruntime")
_PIPED_WIDTH = 120


@dataclass(kw_only=True)
class Session:
    """One invocation; ``verbosity`` counts the ``-v`` given before and after the command.

    ``refused_variable``: the environment variable that gave the value which ended it.
    """

    arguments: tuple[str, ...] = ()
    verbosity: int = 0
    quiet: bool = False
    written: str = ""
    refused_variable: str | None = None

    @property
    def outcome(self) -> str:
        """What was written before an interrupt, for its message."""
        return f"{self.written} was written before" if self.written else "nothing was written"

    def say_written(self, path: object, *, what: str = "") -> None:
        """Report that the result is in place, which a later signal does not undo."""
        self.written = str(path)
        self.say(f"{what} written to {path}".strip())

    def write_page(self, path: Path, text: str) -> None:
        """Write a page or a table to a file, whole or not at all."""
        from edgeprune.storage.files import atomic_write_text

        atomic_write_text(path, text)
        self.say_written(path)

    @property
    def command_line(self) -> str:
        """The command, quoted for a shell."""
        return shlex.join(["edgeprune", *self.arguments])

    def say(self, sentence: str) -> None:
        """Print a message on stderr, unless ``-q``."""
        if not self.quiet:
            streams.say(sentence)


def begin(context: typer.Context, verbose: int, quiet: bool) -> Session:
    """Join the options given before and after the command, and set up what stderr shows.

    Raises:
        UsageError: both -q and -v.
    """
    session: Session = context.obj if isinstance(context.obj, Session) else Session()
    session.verbosity += verbose
    session.quiet = session.quiet or quiet
    if session.quiet and session.verbosity:
        raise UsageError("-q and -v contradict each other; give one of them")
    if context.invoked_subcommand is None:
        _set_up(session)
        for told in unknown_variables(context.find_root().command, os.environ):
            logging.getLogger("edgeprune").warning(told)
    return session


def _set_up(session: Session) -> None:
    from edgeprune.system import progress

    seen = progress.Display.BARS if sys.stderr.isatty() else progress.Display.LINES
    progress.show(progress.Display.NOTHING if session.quiet else seen)
    logger = logging.getLogger("edgeprune")
    logger.handlers = [_SentenceHandler()]
    logger.propagate = False
    logger.setLevel(_log_level(session))
    if session.verbosity == 0:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        warnings.simplefilter("ignore")


def check_page(path: Path | None) -> None:
    """Check before work starts that a page can be written, where one was asked for.

    Raises:
        OutputError: it is a folder, or its folder is missing or not writable.
    """
    if path is not None:
        from edgeprune.storage.files import check_writable

        check_writable(path, what="file")


def quiet_libraries(session: Session) -> None:
    """Silence the libraries' own loggers, unless ``-v``; called after their import, which sets levels."""
    if session.verbosity == 0:
        for name in _NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.simplefilter("ignore")


def _log_level(session: Session) -> int:
    if session.quiet:
        return logging.ERROR
    return {0: logging.WARNING, 1: logging.INFO}.get(session.verbosity, logging.DEBUG)


class _SentenceHandler(logging.Handler):
    """Log records as ``warning: ...`` above a running progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        from edgeprune.system import progress

        text = Text(shown(f"{record.levelname.lower()}: {record.getMessage()}"))
        try:
            progress.console.print(text, soft_wrap=True)
        except (OSError, ValueError):  # a closed stderr does not end a run
            streams.silence(sys.stderr)


def show(result: RenderableType) -> None:
    """Print a result on stdout; names in it are never read as markup."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    with console.capture() as captured:
        console.print(_Harmless(result))
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


class _Harmless:
    """A result whose own texts hold no terminal control characters."""

    def __init__(self, result: RenderableType) -> None:
        self._result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._result, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))


def show_json(result: Any) -> None:
    """Print a result on stdout as JSON."""
    from edgeprune.artifacts.codec import to_jsonable

    text = json.dumps(plain_values(to_jsonable(result)), indent=2, ensure_ascii=False)
    sys.stdout.write(text + "\n")
