"""Coalition values of a run on disk, one file per game or estimate, so that an interrupted run resumes."""

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
    """A folder of ``JournaledGame`` and ``FileCheckpoint`` files, created when the first one is opened.

    Args:
        folder: of the files.
        about: everything that determines the values, name -> identifier, such as a hash. A folder with
            other identifiers is refused.

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
        recorded = read_about(folder)
        differing = [] if recorded is None else _differing(recorded, self._about)
        if differing:
            raise UsageError(
                f"the journal {str(folder)!r} was begun with another {' and another '.join(differing)}, so "
                "its values are of no use here: ask for the same again, or delete the folder to begin anew"
            )

    @property
    def known(self) -> int:
        """Number of stored coalition values of the opened games."""
        return sum(game.known for game in self._games)

    @property
    def kept(self) -> str:
        """Description of what is stored of the opened games and estimates; empty where nothing is."""
        parts = [f"{self.known:,} coalition values"] if self.known else []
        parts += ["gradient estimates"] if any(c.path.exists() for c in self._checkpoints) else []
        parts += [what for place, what in self._places if place.exists()]
        parts = list(dict.fromkeys(parts))
        *before, last = parts or [""]
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
        """The checkpoint of the estimate ``name`` with these ``settings``.

        Raises:
            UsageError: the file was begun with other settings or is damaged.
            OutputError: it cannot be written.
        """
        fingerprint = self._begin(f"{name}\n{settings}")
        opened = FileCheckpoint(self.folder / f"{name}.npz", fingerprint=fingerprint)
        self._checkpoints.append(opened)
        return opened

    def place(self, name: str, what: str) -> Path:
        """A path in the folder for other files of the run, which ``what`` describes once they exist.

        Raises:
            OutputError: the folder cannot be made.
        """
        self._begin(name)
        self._places.append((self.folder / name, what))
        return self.folder / name

    def _begin(self, words: str) -> str:
        """Create the folder if missing; returns the fingerprint of ``words`` and of ``about``."""
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
        """Delete the folder if it holds nothing to resume from, and parent folders created for it."""
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        if _NAME in names and names <= {_NAME, SESSIONS_NAME}:
            shutil.rmtree(self.folder, ignore_errors=True)
            for made in self._made:
                with contextlib.suppress(OSError):  # not empty: others use it, too
                    made.rmdir()

    def remove(self) -> None:
        """Delete the folder after a successful run."""
        for game in self._games:
            game.close()
        if self._games or self._checkpoints or self._places:
            shutil.rmtree(self.folder, ignore_errors=True)


def _check_links(folder: Path) -> None:
    """Refuse links, through which a run would write to, and finally delete, files that are not its own.

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
    """Checkpoints of the two estimates of a ranking with these settings; none without ``journals``."""

    def checkpoint(part: str) -> Checkpoint:
        if journals is None:
            return NoCheckpoint()
        return journals.checkpoint(f"{name}-{part}", settings=f"{settings}")

    return checkpoint


def read_about(folder: Path) -> dict[str, str] | None:
    """The ``about`` of the journal in ``folder``; ``None`` where there is no folder, or an empty one.

    Raises:
        UsageError: something else is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        recorded = read_json(folder / _NAME)
    except UnreadableError:
        recorded = None
    if not isinstance(recorded, dict):
        raise UsageError(
            f"{str(folder)!r} is where coalition values would be kept, but it is no journal of edgeprune: "
            "move it away, or name another output with -o"
        )
    return {str(key): str(value) for key, value in recorded.items()}


def _differing(recorded: Mapping[str, str], about: Mapping[str, str]) -> list[str]:
    return [key for key in sorted({*recorded, *about}) if recorded.get(key) != about.get(key)]
