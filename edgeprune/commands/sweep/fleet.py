"""Cells of a sweep on devices: each on each, devices side by side, and on a device one model at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeprune.commands.sweep.cells import Cell, digest_of
from edgeprune.devices.connection import Device, connected
from edgeprune.devices.runner import DeviceMeasurer
from edgeprune.errors import EdgepruneError
from edgeprune.executors.journal import UnitJournal
from edgeprune.executors.local import LocalExecutor
from edgeprune.executors.performing import failure_of
from edgeprune.executors.resources import room_here
from edgeprune.executors.units import Failure, Outcome, Unit, Work
from edgeprune.options.sweep.fleet import SweepDevice
from edgeprune.profiling.measurer import RunSettings
from edgeprune.reporting.sweep.facts import CellOnDevice
from edgeprune.reporting.sweep.progress import watching_devices
from edgeprune.storage.files import sha256_file
from edgeprune.targets import load_target

_DELIVERED = "model.onnx"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a cell delivered; ``target`` as the sweep names it."""

    cell: str
    onnx_path: Path
    target: str


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What is to be measured on one device; results are kept in ``folder`` as they come."""

    device: SweepDevice
    candidates: tuple[Candidate, ...]
    folder: Path
    how: RunSettings


def check_devices(devices: Sequence[SweepDevice]) -> None:
    """Reach every device once, so that what is wrong with one is known before any cell has run.

    Raises:
        DeviceError: one cannot be reached, or cannot run models.
    """
    for device in devices:
        with connected(device.options):
            pass


def measured(
    devices: Sequence[SweepDevice],
    cells: Sequence[tuple[Cell, Path]],
    records: Path,
    settings: RunSettings,
) -> tuple[CellOnDevice, ...]:
    """Every cell, with its folder, on every device that is for its target; by device, then by cell.

    One that cannot be measured has the reason in place of figures. ``records``: a folder for what was
    measured, from which a second call goes on.
    """
    errands = [
        Errand(device=each, candidates=_candidates(each, cells), folder=records, how=settings)
        for each in devices
    ]
    units = tuple(
        Unit(name=errand.device.name, key=errand.device.name, function=measure_all, payload=errand)
        for errand in errands
        if errand.candidates
    )
    if not units:
        return ()
    # Waiting for a device takes no core of this machine.
    executor = LocalExecutor(room_here(len(units)))
    with watching_devices(len(units)) as watcher:
        outcomes = executor.run(units, None, watcher)
    return tuple(found for outcome in outcomes for found in _found(outcome))


def _candidates(device: SweepDevice, cells: Sequence[tuple[Cell, Path]]) -> tuple[Candidate, ...]:
    targets = None if device.targets is None else {load_target(given).name for given in device.targets}
    return tuple(
        Candidate(cell=cell.name, onnx_path=folder / _DELIVERED, target=cell.options.target)
        for cell, folder in cells
        if targets is None or cell.target in targets
    )


def _found(outcome: Outcome) -> tuple[CellOnDevice, ...]:
    """What came back; where the process was lost, nothing did."""
    errand: Errand = outcome.unit.payload
    failure = outcome.failure
    if failure is None:
        result: tuple[CellOnDevice, ...] = outcome.result
        return result
    return tuple(_failed(errand, candidate, failure) for candidate in errand.candidates)


def measure_all(work: Work) -> tuple[CellOnDevice, ...]:
    """Measure the candidates of an errand over one connection; those that are on record are not run again."""
    errand: Errand = work.payload
    journal = UnitJournal(errand.folder, CellOnDevice)
    units = [_unit(errand, candidate) for candidate in errand.candidates]
    known = {unit.name: found for unit in units if (found := journal.find(unit)) is not None}
    left = [(u, c) for u, c in zip(units, errand.candidates, strict=True) if u.name not in known]
    with contextlib.ExitStack() as stack:
        try:
            device = stack.enter_context(connected(errand.device.options)) if left else None
        except EdgepruneError as error:
            known |= {unit.name: _failed(errand, each, failure_of(error)) for unit, each in left}
            left = []
        for unit, candidate in left:
            assert device is not None
            known[unit.name] = _measured(errand, candidate, device)
            if known[unit.name].failure is None:
                journal.keep(unit, known[unit.name])
    return tuple(known[unit.name] for unit in units)


def _measured(errand: Errand, candidate: Candidate, there: Device) -> CellOnDevice:
    try:
        measurer = DeviceMeasurer(
            device=there, settings=errand.how, target=load_target(candidate.target), noise_check=True
        )
        return CellOnDevice(
            cell=candidate.cell,
            device=errand.device.name,
            latency=measurer.latency(candidate.onnx_path),
            peak_memory_bytes=measurer.peak_memory_bytes(candidate.onnx_path),
        )
    except Exception as error:  # of one candidate; the others are measured all the same
        return _failed(errand, candidate, failure_of(error))


def _failed(errand: Errand, candidate: Candidate, why: Failure) -> CellOnDevice:
    return CellOnDevice(
        cell=candidate.cell,
        device=errand.device.name,
        failure=why.sentence,
        exit_status=why.exit_status,
    )


def _unit(errand: Errand, candidate: Candidate) -> Unit:
    """One measurement for the records: of these bytes, on this device, in this way."""
    parts = {
        "cell": candidate.cell,
        "device": repr(errand.device),
        "content": sha256_file(candidate.onnx_path),
        "how": {name: repr(value) for name, value in asdict(errand.how).items()},
    }
    return Unit(name=f"{candidate.cell} on {errand.device.name}", key=digest_of(parts), function=measure_all)
