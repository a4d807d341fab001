"""Finished cells of an earlier sweep in the output folder, for one that asks for them again."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from edgeprune.errors import UsageError
from edgeprune.executors.journal import UnitJournal
from edgeprune.executors.units import Unit
from edgeprune.reporting.sweep.facts import CellReport, CellResult, CellState
from edgeprune.reporting.sweep.files import SWEEP_NAME, read_sweep_report
from edgeprune.storage.files import sha256_file
from edgeprune.storage.outputs import read_manifest

_log = logging.getLogger("edgeprune.commands")


def take_earlier(output: Path, units: Sequence[Unit], journal: UnitJournal[CellResult]) -> None:
    """Put cells of the sweep in ``output`` that have the same keys into the journal of this one.

    One whose files are not those that were written is left out, with a warning, and so run again.
    """
    by_key = finished_cells(output)
    for unit in units:
        cell, work = by_key.get(unit.key), unit.payload.folder
        if cell is None or cell.figures is None or work.exists() or journal.find(unit) is not None:
            continue
        place = output / (cell.folder or "")
        if not _is_whole(place):
            _log.warning("the files of %s in %r were changed, so it is run again", cell.name, str(output))
            continue
        link_folder(place, work)
        journal.keep(unit, CellResult(figures=cell.figures, uses=(), duration_s=cell.duration_s))


def link_folder(source: Path, destination: Path) -> None:
    """A second name for every file of a folder, or a copy on file systems without such names.

    Raises:
        OSError: the destination exists, or cannot be written.
    """

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    shutil.copytree(source, destination, copy_function=link)


def finished_cells(output: Path) -> dict[str, CellReport]:
    """Cells of the sweep in a folder that have results, by key."""
    if not (output / SWEEP_NAME).is_file():
        return {}
    try:
        report = read_sweep_report(output / SWEEP_NAME)
    except UsageError as error:
        _log.warning("cells of an earlier sweep are not taken: %s", error)
        return {}
    return {cell.key: cell for cell in report.cells if cell.state is CellState.DONE}


def _is_whole(folder: Path) -> bool:
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    try:
        return all(sha256_file(folder / each.path) == each.sha256 for each in manifest.outputs)
    except OSError:
        return False
