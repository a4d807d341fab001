"""Find a function of the user by ``package.module:name`` or ``path/to/file.py:name``."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.errors import EdgepruneError
from edgeprune.system.compat import torchvision_repaired


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let Python find modules in ``folder`` for the duration of the block."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


class UserFunction:
    """A user function given by name; modules beside it can be imported while it is called."""

    def __init__(
        self, spec: str, *, what: str, error: type[EdgepruneError], given: str = "the network to train"
    ) -> None:
        """Import the function that ``spec`` names; ``given`` says what it is called with.

        Modules in the current directory, and those beside a given file, can be imported meanwhile.

        Raises:
            EdgepruneError: of class ``error``; the module or the function is missing.
        """
        location, _, name = spec.rpartition(":")
        if not location or not name:
            raise error(
                f"{what} {spec!r} is not understood; give package.module:function or path/to/file.py:function"
            )
        self._told = f"{what} {spec!r}"
        self._error = error
        self._given = given
        self._folder = Path(location).parent if location.endswith(".py") else Path.cwd()
        with self._importable():
            module = _import_module(location, spec, what=what, error=error)
            self._function = _find_function(module, name, spec, what=what, error=error)

    def parameters(self) -> tuple[str, ...] | None:
        """Names that the function takes; ``None`` where it takes any, or does not tell."""
        try:
            given = inspect.signature(self._function).parameters
        except (TypeError, ValueError):
            return None
        kinds = {parameter.kind for parameter in given.values()}
        if inspect.Parameter.VAR_KEYWORD in kinds:
            return None
        hidden = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)
        return tuple(name for name, parameter in given.items() if parameter.kind not in hidden)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function and return its result.

        Raises:
            EdgepruneError: the function raises.
        """
        with self._importable():
            try:
                with ended_in_the_open():
                    return self._function(*arguments, **options)
            except Exception as reason:
                given = self._given if arguments else ", ".join(options) or "no arguments"
                raise self._error(
                    f"{self._told} raised {told(reason)}; it is called with {given} and has to work that way"
                ) from reason

    @contextlib.contextmanager
    def _importable(self) -> Iterator[None]:
        with importable(Path.cwd()), importable(self._folder), torchvision_repaired():
            yield


def call_user_function(spec: str, *, what: str, error: type[EdgepruneError]) -> Any:
    """Import the function that ``spec`` names and call it without arguments.

    Raises:
        EdgepruneError: of class ``error``; the module or the function is missing, or raises.
    """
    return UserFunction(spec, what=what, error=error)()


def _import_module(location: str, spec: str, *, what: str, error: type[EdgepruneError]) -> ModuleType:
    path = Path(location)
    try:
        with ended_in_the_open():
            if not location.endswith(".py"):
                # A module written a moment ago is otherwise missed by the finders' cached listings.
                importlib.invalidate_caches()
                return importlib.import_module(location)
            if not path.is_file():
                raise error(f"{what} {spec!r} names the file {location!r}, which does not exist")
            return _import_file(path)
    except EdgepruneError:
        raise
    except Exception as reason:
        raised = raised_in(reason)
        raise error(
            f"{what} {spec!r} cannot be imported ({type(raised).__name__}: {first_line(raised)}); "
            "give package.module:function of an importable module, or path/to/file.py:function"
        ) from reason


def _import_file(path: Path) -> ModuleType:
    name = f"edgeprune_user_{path.stem}"
    loader_spec = importlib.util.spec_from_file_location(name, path)
    if loader_spec is None or loader_spec.loader is None:
        raise ImportError(f"no loader for {path}")
    module = importlib.util.module_from_spec(loader_spec)
    # Dataclasses and torch.export look classes up through sys.modules.
    sys.modules[name] = module
    try:
        loader_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _find_function(
    module: ModuleType, name: str, spec: str, *, what: str, error: type[EdgepruneError]
) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    candidates = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
    near = difflib.get_close_matches(name, candidates, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise error(f"{what} {spec!r} names {name!r}, which is no function of that module{hint}")


@contextlib.contextmanager
def ended_in_the_open() -> Iterator[None]:
    """Turn silent exits of the process, such as ``sys.exit`` in user code, into an exception.

    Raises:
        UserCodeEndedError: names what was raised, and where.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as reason:
        if type(reason) is KeyboardInterrupt:  # Ctrl-C; a user's subclass of it is not
            raise
        raise UserCodeEndedError(ended_by(reason)) from reason


@contextlib.contextmanager
def user_code(what: str, error: type[EdgepruneError], remedy: str) -> Iterator[None]:
    """Run user code; its exceptions become an ``error`` that names ``what`` and the ``remedy``.

    Raises:
        EdgepruneError: of class ``error``; names what was raised.
    """
    try:
        with ended_in_the_open():
            yield
    except EdgepruneError:
        raise
    except Exception as reason:
        raise error(f"{what} raised {told(reason)}; {remedy}") from reason


def told(reason: BaseException) -> str:
    """``ValueError (the width is missing)``; the class alone without a message."""
    raised = raised_in(reason)
    said = first_line(raised)
    name = type(raised).__name__
    return name if said == name else f"{name} ({said})"


class UserCodeEndedError(Exception):
    """User code raised something other than an ordinary exception."""


def raised_in(reason: BaseException) -> BaseException:
    """Exception that user code raised in a block of :func:`ended_in_the_open`."""
    return (reason.__cause__ or reason) if isinstance(reason, UserCodeEndedError) else reason


def ended_by(reason: BaseException) -> str:
    """``SystemExit: 3 was raised in nets.py:12``."""
    told = f"{type(reason).__name__}: {first_line(reason)}" if str(reason) else type(reason).__name__
    frames = traceback.extract_tb(reason.__traceback__)
    return f"{told} was raised in {frames[-1].filename}:{frames[-1].lineno}" if frames else told


def first_line(error: BaseException, limit: int = 200) -> str:
    """First non-empty line of an exception's text, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
