"""Profiles of devices: calibrated by measuring, checked and kept in the user's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.commands.targets.calibration import MeasuredDevice, ThisHost, calibrate
from edgeprune.commands.targets.measuring_there import GridThere
from edgeprune.commands.targets.own_profiles import add, destination, require_free, write_profile
from edgeprune.devices.connection import connected
from edgeprune.errors import UsageError
from edgeprune.options.devices import DeviceOptions
from edgeprune.targets import TargetProfile, load_target


@dataclass(frozen=True, kw_only=True)
class WrittenTarget:
    """A profile and the file that holds it."""

    path: str
    profile: TargetProfile


def calibrate_target(
    name: str,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    device: DeviceOptions | MeasuredDevice | None = None,
    target: str | None = None,
) -> WrittenTarget:
    """Measure small networks on a device and write a profile whose predictions follow from their times.

    Args:
        name: of the profile, by which ``target`` finds it.
        output: the .toml file to write; in the user's folder of profiles where ``None``.
        device: the device to measure, over ssh or adb (:class:`DeviceOptions`), or whatever times a list of
            ONNX files; this host where ``None``.
        target: profile whose facts (cores, instruction set, caches, memory) the device behind ssh or adb has.

    Raises:
        TargetError: the name is taken by a shipped profile, or too little could be measured, or the device
            has other instructions than ``target``.
        UsageError: a device behind ssh or adb without ``target``, or ``target`` without one.
        DeviceError: the device cannot be reached, or fails.
        OutputError: the file exists or cannot be written.
    """
    over_connection = isinstance(device, DeviceOptions)
    if over_connection != (target is not None):
        words = (
            "a device was given without target" if over_connection else "target was given without a device"
        )
        raise UsageError(f"{words}; give both: the target has the facts of the device that is measured")
    path = destination(name, None if output is None else Path(output))
    require_free(path, overwrite)
    if isinstance(device, DeviceOptions):
        described = load_target(str(target))
        with connected(device) as there:
            assert there is not None
            grid_there = GridThere(device=there, facts=described)
            grid_there.check()
            profile = calibrate(name, grid_there)
    else:
        profile = calibrate(name, device or ThisHost())
    return WrittenTarget(path=str(write_profile(profile, path, overwrite)), profile=profile)


def add_target(path: str | Path, *, overwrite: bool = False) -> Path:
    """Copy a profile, once checked, into the user's folder, where ``target`` finds it by its name.

    Raises:
        TargetError: it is no well-formed profile, or has the name of a shipped one.
        OutputError: there is one of that name already, or the folder cannot be written.
    """
    return add(Path(path), overwrite)
