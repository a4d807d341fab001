"""Profiles in the user's folder: added there, and calibrated ones written."""

from __future__ import annotations

from pathlib import Path

from edgeprune.errors import OutputError, TargetError
from edgeprune.storage.files import atomic_write_text, cannot_write
from edgeprune.targets import TargetProfile, check_profile, list_targets, load_target, targets_folder, to_toml


def add(path: Path, overwrite: bool) -> Path:
    """Copy a checked profile into the user's folder, under its own name; returns where it is.

    Raises:
        TargetError: it is no well-formed profile, or has the name of a shipped one.
        OutputError: there is one of that name already, or the folder cannot be written.
    """
    if path.suffix != ".toml":
        raise TargetError(f"{str(path)!r} is no .toml file; give the path of a profile")
    return write_profile(load_target(str(path)), destination(load_target(str(path)).name, None), overwrite)


def destination(name: str, output: Path | None) -> Path:
    """Where a profile of that name goes: ``output``, or the user's folder.

    Raises:
        TargetError: the name is that of a shipped profile or an alias.
        OutputError: ``output`` is no .toml file.
    """
    if name in list_targets() or _is_alias(name):
        raise TargetError(
            f"{name!r} is a shipped target, which comes before those of the user; give the profile "
            "another name"
        )
    if output is None:
        return targets_folder() / f"{name}.toml"
    if output.suffix != ".toml" or output.is_dir():
        raise OutputError(f"output {str(output)!r} is no .toml file; name one, such as -o {name}.toml")
    return output


def require_free(path: Path, overwrite: bool) -> None:
    """Check that a file may be written, before any work.

    Raises:
        OutputError: it exists and is to stay.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{str(path)!r} is there already, and stays; name another one, or add --overwrite")


def write_profile(profile: TargetProfile, path: Path, overwrite: bool) -> Path:
    """Write a profile, whole or not at all.

    Raises:
        TargetError: it would not be read again.
        OutputError: the file is to stay, or cannot be written.
    """
    check_profile(profile, path.name)
    require_free(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(cannot_write(path.parent, error, what="folder")) from error
    atomic_write_text(path, to_toml(profile))
    return path


def _is_alias(name: str) -> bool:
    return any(name in load_target(shipped).aliases for shipped in list_targets())
