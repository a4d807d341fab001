"""The output folder: checked early, filled in a hidden sibling, put in place in one step."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.errors import OutputError
from edgeprune.storage.documents import UnreadableError, read_json
from edgeprune.storage.files import (
    atomic_write_bytes,
    atomic_write_text,
    cannot_write,
    check_room,
    full_disk_told,
    sha256_file,
)
from edgeprune.storage.ownership import hidden_name, remove_abandoned
from edgeprune.storage.replacing import exchange, holds, restore

__all__ = [
    "MANIFEST_NAME",
    "MANIFEST_SCHEMA_VERSION",
    "Manifest",
    "OutputFile",
    "atomic_write_bytes",
    "atomic_write_text",
    "check_destination",
    "list_again",
    "read_manifest",
    "sha256_file",
    "staged_output",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
MANIFEST_SCHEMA_VERSION = "1.0"
_CREATOR = "edgeprune"

Given = Mapping[str, "str | Path | None"]
"""Inputs of a command by role: a path, or a name such as ``torchvision:NAME`` or ``FILE.py:NAME``."""


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file of an output folder; ``path`` is relative to it, with forward slashes."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What went in and what came out of a run; ``inputs`` maps a name or path to its SHA-256."""

    schema_version: str
    created_by: str
    created_utc: str
    command: str
    seed: int
    versions: dict[str, str]
    inputs: dict[str, str]
    outputs: tuple[OutputFile, ...]


def check_destination(path: str | Path, *, overwrite: bool = False, reads: Given | None = None) -> Path:
    """The absolute path of an output folder that may be written; it is not created yet.

    An existing empty folder is accepted; one with content only with ``overwrite``, and then only
    if its manifest shows that edgeprune wrote it and it holds nothing that the command ``reads``. Leftovers
    of a killed process at this path are cleaned up first.

    Raises:
        OutputError: the destination, or one of its parents, is not acceptable, or has no room.
    """
    destination = Path(path).expanduser().resolve()
    try:
        _put_in_order(destination)
        _check_acceptable(destination, repr(str(path)), overwrite, reads or {})
        check_room(_nearest_folder(destination), str(path))
    except OSError as error:
        raise _cannot_write(path, error) from error
    return destination


def _put_in_order(destination: Path) -> None:
    restore(destination, _listed)
    remove_abandoned(destination.parent)


def _nearest_folder(destination: Path) -> Path:
    return next(parent for parent in destination.parents if parent.exists())


def _check_acceptable(destination: Path, shown: str, overwrite: bool, reads: Given) -> None:
    if destination.exists() and not destination.is_dir():
        raise OutputError(f"output {shown} is a file; name a folder that does not exist yet")
    if _contains_working_folder(destination):
        raise OutputError(
            f"output {shown} is the current folder or holds it, so it cannot be replaced; "
            "name a folder inside it, such as -o out"
        )
    if destination.is_mount():
        raise OutputError(
            f"output {shown} is a mount point, which cannot be replaced; name a folder inside it"
        )
    if destination.is_dir() and any(destination.iterdir()):
        _check_replaceable(destination, shown, overwrite)
        check_apart(destination, shown, reads)
    ancestor = _nearest_folder(destination)
    if not ancestor.is_dir():
        raise OutputError(f"output {shown} cannot be made: {str(ancestor)!r} is a file, not a folder")
    for folder in (ancestor, *([destination] if destination.is_dir() else [])):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(
                f"output {shown} cannot be made: folder {str(folder)!r} is not writable; "
                "name a path in a writable folder"
            )


def check_apart(folder: Path, shown: str, reads: Given) -> None:
    """Refuse to replace a folder that holds an input of the command.

    Raises:
        OutputError: names the input.
    """
    for what, given in reads.items():
        if given is not None and any(holds(folder, place) for place in _places(given)):
            raise OutputError(
                f"output {shown} holds the {what} {str(given)!r}, which this run reads, so it will not be "
                "replaced; name another folder with -o"
            )


def _places(given: str | Path) -> list[Path]:
    """Possible paths of an input: itself, the part before ``:NAME``, or a module in the current folder."""
    text = str(given)
    location, colon, _ = text.rpartition(":")
    places = [Path(text).expanduser()]
    if colon and location:
        module = Path(*location.split("."))
        places += [Path(location).expanduser(), module, module.with_suffix(".py")]
    return places


def _contains_working_folder(destination: Path) -> bool:
    return Path.cwd().resolve().is_relative_to(destination)


def _check_replaceable(destination: Path, shown: str, overwrite: bool) -> None:
    if not overwrite:
        raise OutputError(
            f"output {shown} exists already and is not empty; "
            "name another folder with -o, or add --overwrite to replace it"
        )
    if read_manifest(destination) is None:
        raise OutputError(
            f"output {shown} holds no {MANIFEST_NAME} written by edgeprune, so --overwrite will not "
            "delete it; name another folder with -o, or remove that one yourself"
        )


@contextmanager
def staged_output(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A hidden folder beside ``path`` to write into; it becomes ``path`` when the block succeeds.

    Only the files that the manifest of an old output lists are removed; others stay where they are.
    On any exception, Ctrl-C included, the hidden folder and every parent folder made for it are
    removed and what was at ``path`` stays unchanged. Leftovers of a killed process are removed by the next
    call for the same path.

    Raises:
        OutputError: the destination is not acceptable (before the block), cannot be put in place, or the disk
            is full.
    """
    destination = check_destination(path, overwrite=overwrite)
    made = _missing_parents(destination)
    staging = destination.parent / hidden_name()
    try:
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir()
        except OSError as error:
            raise _cannot_write(path, error) from error
        with full_disk_told():
            yield staging
        check_destination(destination, overwrite=overwrite)
        try:
            exchange(staging, destination, _listed)
        except OSError as error:
            raise _cannot_write(path, error) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)
        raise


def _missing_parents(destination: Path) -> list[Path]:
    """Ancestors that do not exist yet, innermost first."""
    return [parent for parent in destination.parents if not parent.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _cannot_write(path: str | Path, error: OSError) -> OutputError:
    return OutputError(cannot_write(path, error, what="output"))


def _listed(folder: Path) -> tuple[str, ...]:
    """Paths of the files that edgeprune wrote into ``folder``; none without a manifest."""
    manifest = read_manifest(folder)
    return () if manifest is None else (*(f.path for f in manifest.outputs), MANIFEST_NAME)


def write_manifest(
    staging: str | Path,
    *,
    inputs: Mapping[str, str],
    seed: int,
    command: str,
    versions: Mapping[str, str],
    created_utc: str | None = None,
) -> Manifest:
    """Write ``manifest.json``: size and SHA-256 of every file below ``staging``, and what made them.

    Call it last: files written afterwards are not listed. ``inputs`` maps names to SHA-256.

    Raises:
        OutputError: the manifest cannot be written.
    """
    folder = Path(staging)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST_NAME)
    manifest = Manifest(
        schema_version=MANIFEST_SCHEMA_VERSION,
        created_by=_CREATOR,
        created_utc=created_utc or datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        seed=seed,
        versions=dict(sorted(versions.items())),
        inputs=dict(sorted(inputs.items())),
        outputs=tuple(_listing(folder, file) for file in files),
    )
    _write(folder, manifest)
    return manifest


def list_again(folder: Path, file: Path) -> None:
    """Put a file that was written anew, or added, into the manifest of its output folder, if it has one.

    Raises:
        OutputError: the manifest cannot be written.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return
    listing = _listing(folder, file)
    others = tuple(each for each in manifest.outputs if each.path != listing.path)
    _write(folder, replace(manifest, outputs=tuple(sorted((*others, listing), key=lambda each: each.path))))


def _listing(folder: Path, file: Path) -> OutputFile:
    return OutputFile(
        path=file.relative_to(folder).as_posix(), size_bytes=file.stat().st_size, sha256=sha256_file(file)
    )


def _write(folder: Path, manifest: Manifest) -> None:
    atomic_write_text(folder / MANIFEST_NAME, json.dumps(to_jsonable(manifest), indent=2) + "\n")


def read_manifest(folder: str | Path) -> Manifest | None:
    """The manifest of an output folder; ``None`` if edgeprune wrote none."""
    try:
        manifest = from_jsonable(Manifest, read_json(Path(folder) / MANIFEST_NAME))
    except (UnreadableError, ValueError):
        return None
    return manifest if manifest.created_by == _CREATOR else None
