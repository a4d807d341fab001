"""The output folder: checked early, filled in a hidden sibling, put in place in one step."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.errors import OutputError
from edgeprune.files import atomic_write_bytes, atomic_write_text, sha256_file

__all__ = [
    "MANIFEST_NAME",
    "MANIFEST_SCHEMA_VERSION",
    "Manifest",
    "OutputFile",
    "atomic_write_bytes",
    "atomic_write_text",
    "check_destination",
    "read_manifest",
    "sha256_file",
    "staged_output",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
MANIFEST_SCHEMA_VERSION = "1.0"
_CREATOR = "edgeprune"
_log = logging.getLogger("edgeprune.outputs")


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


def check_destination(path: str | Path, *, overwrite: bool = False) -> Path:
    """The absolute path of an output folder that may be written; nothing is created.

    An existing empty folder is accepted; one with content only with ``overwrite``, and then only
    where its manifest shows that edgeprune wrote it.

    Raises:
        OutputError: the destination, or a part of the way to it, is not acceptable.
    """
    destination = Path(path).expanduser().resolve()
    try:
        _check_acceptable(destination, repr(str(path)), overwrite)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return destination


def _check_acceptable(destination: Path, shown: str, overwrite: bool) -> None:
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
    ancestor = next(parent for parent in destination.parents if parent.exists())
    if not ancestor.is_dir():
        raise OutputError(f"output {shown} cannot be made: {str(ancestor)!r} is a file, not a folder")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise OutputError(
            f"output {shown} cannot be made: folder {str(ancestor)!r} is not writable; "
            "name a path in a writable folder"
        )


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

    On any exception, Ctrl-C included, the hidden folder and every parent folder made for it are
    removed and what was at ``path`` stays as it was.

    Raises:
        OutputError: the destination is not acceptable (before the block), or cannot be put in place.
    """
    destination = check_destination(path, overwrite=overwrite)
    made = _missing_parents(destination)
    staging = destination.parent / f".edgeprune-{secrets.token_hex(6)}.tmp"
    try:
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir()
        except OSError as error:
            raise _cannot_write(path, error) from error
        yield staging
        check_destination(destination, overwrite=overwrite)
        _put_in_place(staging, destination, path)
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
    reason = error.strerror or str(error)
    return OutputError(f"output {str(path)!r} cannot be written ({reason}); name a path in a writable folder")


def _put_in_place(staging: Path, destination: Path, path: str | Path) -> None:
    """Rename ``staging`` to ``destination``; an old folder is moved aside first and deleted last."""
    aside = staging.with_suffix(".old")
    try:
        try:
            if destination.exists():
                destination.rename(aside)
            staging.rename(destination)
        except BaseException:
            if aside.exists() and not destination.exists():
                aside.rename(destination)
            raise
    except OSError as error:
        raise _cannot_write(path, error) from error
    if aside.exists():
        shutil.rmtree(aside, ignore_errors=True)
        if aside.exists():
            _log.warning("the replaced output could not be deleted; it is left at %s", aside)


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
        outputs=tuple(
            OutputFile(
                path=file.relative_to(folder).as_posix(),
                size_bytes=file.stat().st_size,
                sha256=sha256_file(file),
            )
            for file in files
        ),
    )
    atomic_write_text(folder / MANIFEST_NAME, json.dumps(to_jsonable(manifest), indent=2) + "\n")
    return manifest


def read_manifest(folder: str | Path) -> Manifest | None:
    """The manifest of an output folder; ``None`` where there is none that edgeprune wrote."""
    try:
        data = json.loads((Path(folder) / MANIFEST_NAME).read_text(encoding="utf-8"))
        manifest = from_jsonable(Manifest, data)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return manifest if manifest.created_by == _CREATOR else None
