"""Coalition values of a run on file, one game or estimate a file, so that a run that was stopped goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeprune.errors import OutputError, UsageError
from edgeprune.shapley.checkpoint import Checkpoint, FileCheckpoint, NoCheckpoint
from edgeprune.shapley.game import Game
from edgeprune.shapley.journal import JournaledGame
from edgeprune.storage.documents import UnreadableError, read_json
from edgeprune.storage.files import atomic_write_text
from edgeprune.storage.ownership import remove_abandoned
from edgeprune.storage.sessions import SESSIONS_NAME

_NAME = "journal.json"


class Journals:
    """A folder of ``JournaledGame`` and ``FileCheckpoint`` files, made when the first one is opened.

    Args:
        folder: of the files.
        about: whatever decides the values, what it is -> a word for it, such as a hash. A folder of other
            words is refused.

    Raises:
        UsageError: the folder exists and is no journal, or one of another run; says what differs.
    """

    def __init__(self, folder: Path, about: Mapping[str, str]) -> None:
        self.folder = folder
        self._about = dict(about)
        self._games: list[JournaledGame] = []
        self._checkpoints: list[FileCheckpoint] = []
        self._places: list[tuple[Path, str]] = []
        self._made: list[Path] = []
        _check_links(folder)
        remove_abandoned(folder)
        found = read_about(folder)
        differing = [] if found is None else _differing(found, self._about)
        if differing:
            raise UsageError(
                f"the journal {str(folder)!r} was begun with another {' and another '.join(differing)}, so "
                "its values are of no use here: ask for the same again, or delete the folder to begin anew"
            )

    @property
    def known(self) -> int:
        """Coalition values on file of the games that were opened."""
        return sum(game.known for game in self._games)

    @property
    def kept(self) -> str:
        """What is on file of the games and estimates that were opened, in words; empty where nothing is."""
        found = [f"{self.known:,} coalition values"] if self.known else []
        found += ["gradient estimates"] if any(c.path.exists() for c in self._checkpoints) else []
        found += [what for place, what in self._places if place.exists()]
        found = list(dict.fromkeys(found))
        *before, last = found or [""]
        return f"{', '.join(before)} and {last}" if before else last

    def open(self, game: Game, name: str) -> JournaledGame:
        """``game`` with its values kept in the file ``name``; use it in a ``with`` statement.

        Raises:
            UsageError: the file is damaged.
            OutputError: it cannot be written.
        """
        opened = JournaledGame(game, self.folder / f"{name}.values", fingerprint=self._begin(name))
        self._games.append(opened)
        return opened

    def checkpoint(self, name: str, *, settings: str) -> FileCheckpoint:
        """Where the estimate ``name`` of these ``settings`` keeps its state.

        Raises:
            UsageError: the file was begun with other settings or is damaged.
            OutputError: it cannot be written.
        """
        fingerprint = self._begin(f"{name}\n{settings}")
        opened = FileCheckpoint(self.folder / f"{name}.npz", fingerprint=fingerprint)
        self._checkpoints.append(opened)
        return opened

    def place(self, name: str, what: str) -> Path:
        """A path in the folder for other files of the run, and what they are in words once they are there.

        Raises:
            OutputError: the folder cannot be made.
        """
        self._begin(name)
        self._places.append((self.folder / name, what))
        return self.folder / name

    def _begin(self, words: str) -> str:
        """Make the folder if need be; the fingerprint of ``words`` and of all that decides the values."""
        try:
            self._made += [parent for parent in self.folder.parents if not parent.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"coalition values cannot be kept in {str(self.folder)!r}: {error.strerror}"
            ) from error
        text = json.dumps(self._about, indent=2, sort_keys=True) + "\n"
        if not (self.folder / _NAME).exists():
            atomic_write_text(self.folder / _NAME, text)
        return hashlib.sha256(f"{words}\n{text}".encode()).hexdigest()

    def remove_if_empty(self) -> None:
        """Delete the folder where nothing is there to go on from, and folders made for it."""
        found = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        if _NAME in found and found <= {_NAME, SESSIONS_NAME}:
            shutil.rmtree(self.folder, ignore_errors=True)
            for made in self._made:
                with contextlib.suppress(OSError):  # not empty: others use it, too
                    made.rmdir()

    def remove(self) -> None:
        """Delete the folder, once the run has ended well."""
        for game in self._games:
            game.close()
        if self._games or self._checkpoints or self._places:
            shutil.rmtree(self.folder, ignore_errors=True)


def _check_links(folder: Path) -> None:
    """Refuse links, behind which a run would write into, and in the end delete, what is not its own.

    Raises:
        UsageError: the folder is one, or holds one.
    """
    for path in (folder, *(folder.rglob("*") if folder.is_dir() else ())):
        if path.is_symlink():
            raise UsageError(
                f"{str(path)!r} is a link, and edgeprune puts none into a journal: put what it leads to in "
                "its place, or delete the journal to begin anew"
            )


def ranking_checkpoints(
    journals: Journals | None, name: str, settings: object
) -> Callable[[str], Checkpoint]:
    """Where a ranking of these settings keeps its two estimates; nowhere without ``journals``."""

    def checkpoint(part: str) -> Checkpoint:
        if journals is None:
            return NoCheckpoint()
        return journals.checkpoint(f"{name}-{part}", settings=f"{settings}")

    return checkpoint


def read_about(folder: Path) -> dict[str, str] | None:
    """What the journal in ``folder`` was begun with; ``None`` where there is no folder, or an empty one.

    Raises:
        UsageError: something else is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        found = read_json(folder / _NAME)
    except UnreadableError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(
            f"{str(folder)!r} is where coalition values would be kept, but it is no journal of edgeprune: "
            "move it away, or name another output with -o"
        )
    return {str(key): str(value) for key, value in found.items()}


def _differing(found: Mapping[str, str], about: Mapping[str, str]) -> list[str]:
    return [key for key in sorted({*found, *about}) if found.get(key) != about.get(key)]
