"""Profiles of devices: calibrated by measuring, checked and kept in the user's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.commands.targets.calibration import Measured, calibrate
from edgeprune.commands.targets.own_profiles import add, destination, require_free, write_profile
from edgeprune.targets import TargetProfile


@dataclass(frozen=True, kw_only=True)
class WrittenTarget:
    """A profile and the file that holds it."""

    path: str
    profile: TargetProfile


def calibrate_target(
    name: str, *, output: str | Path | None = None, overwrite: bool = False, device: Measured | None = None
) -> WrittenTarget:
    """Measure small networks on a device and write a profile whose predictions follow from their times.

    Args:
        name: of the profile, by which ``target`` finds it.
        output: the .toml file to write; in the user's folder of profiles where ``None``.
        device: what measures there; this host where ``None``.

    Raises:
        TargetError: the name is taken by a shipped profile, or too little could be measured.
        OutputError: the file exists or cannot be written.
    """
    path = destination(name, None if output is None else Path(output))
    require_free(path, overwrite)
    profile = calibrate(name, device or Measured())
    return WrittenTarget(path=str(write_profile(profile, path, overwrite)), profile=profile)


def add_target(path: str | Path, *, overwrite: bool = False) -> Path:
    """Copy a profile, once checked, into the user's folder, where ``target`` finds it by its name.

    Raises:
        TargetError: it is no well-formed profile, or has the name of a shipped one.
        OutputError: there is one of that name already, or the folder cannot be written.
    """
    return add(Path(path), overwrite)
