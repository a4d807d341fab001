"""Replace an older output folder by a finished one without losing files of the user.

The old folder is moved aside, the new one takes its place, then the user's own files move into it and only
files known to be edgeprune's are deleted. A process that is killed meanwhile leaves the old folder aside,
under a name that identifies its destination; ``restore`` finishes or undoes the exchange.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeprune.storage.ownership import HIDDEN_PREFIX, abandoned, owned_token

_log = logging.getLogger("edgeprune.storage.outputs")
_KEPT = "kept"

Listed = Callable[[Path], Sequence[str]]
"""Relative paths, with forward slashes, of what edgeprune wrote into a folder; the list itself comes last."""


def exchange(new: Path, destination: Path, listed: Listed) -> None:
    """Rename ``new`` to ``destination``; files there that are not ``listed`` stay where they are.

    Raises:
        OSError: the system refuses; the former state is restored.
    """
    aside = destination.parent / f"{HIDDEN_PREFIX}{owned_token()}{_ending(destination)}"
    try:
        if destination.exists():
            destination.rename(aside)
        new.rename(destination)
    except BaseException:
        if aside.exists() and not destination.exists():
            aside.rename(destination)
        raise
    if aside.exists():
        _empty(aside, destination, listed(aside))


def restore(destination: Path, listed: Listed) -> None:
    """Finish or undo exchanges at ``destination`` whose process was killed meanwhile."""
    for aside in abandoned(destination.parent, HIDDEN_PREFIX, _ending(destination)):
        if destination.is_dir():
            _empty(aside, destination, listed(aside))
        else:
            aside.rename(destination)
            _log.warning("%s is back, which a run that was killed had moved aside", destination)


def _ending(destination: Path) -> str:
    return f".{hashlib.sha256(os.fsencode(destination.name)).hexdigest()[:12]}.old"


def _empty(aside: Path, destination: Path, listed: Sequence[str]) -> None:
    """Move what is not ``listed`` back and delete the rest; what cannot be moved is left and logged."""
    try:
        # If this is interrupted, the list must still exist for the next process to continue.
        _sort_out(aside, aside, destination, frozenset(listed), spared=listed[-1:])
        _sort_out(aside, aside, destination, frozenset(listed))
        aside.rmdir()
    except OSError as error:
        _log.warning(
            "files of the replaced output are left at %s (%s); move them from there",
            aside, error.strerror or error,
        )  # fmt: skip


def _sort_out(
    folder: Path, top: Path, destination: Path, listed: frozenset[str], spared: Sequence[str] = ()
) -> None:
    """Move or delete the entries of ``folder`` except those ``spared``; links are never followed."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        path = Path(entry.path)
        relative = path.relative_to(top)
        if relative.as_posix() in spared:
            continue
        inner = entry.is_dir(follow_symlinks=False)
        if inner and any(path.iterdir()):
            _sort_out(path, top, destination, listed)
            path.rmdir()
        elif not inner and relative.as_posix() in listed:
            path.unlink()
        else:
            _move(path, destination, relative)


def _move(path: Path, destination: Path, relative: Path) -> None:
    """Move to the same place in ``destination`` or, if that is taken, beside it under a free name."""
    place = destination / relative
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink() and place.is_dir():
        path.rmdir()  # an empty folder that exists there already
        return
    free, number = place, 1
    while os.path.lexists(free):
        free = place.with_name(f"{place.name}.{_KEPT}{'' if number == 1 else number}")
        number += 1
    path.rename(free)
    if free != place:
        _log.warning(
            "%s was not written by edgeprune and the new output has a file of that name: yours is now %s",
            place, free,
        )  # fmt: skip


def holds(folder: Path, path: Path) -> bool:
    """Whether ``path`` is ``folder`` or lies in it, directly or through links, whatever the spelling."""
    with contextlib.suppress(OSError, ValueError):
        own = folder.stat()
        given = path.absolute()
        ways = [given.parent.resolve() / given.name, given.resolve()]
        ways += [] if ".." in given.parts else [given]
        return any(_is_same(place, own) for way in ways for place in (way, *way.parents))
    return False


def _is_same(place: Path, own: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(place.stat(), own)
    return False
