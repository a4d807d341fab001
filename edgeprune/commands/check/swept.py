"""Output folders of sweeps among what is compared and checked: which paths are some, and their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import UsageError
from edgeprune.reporting.sweep.facts import CellReport, CellState
from edgeprune.reporting.sweep.files import SWEEP_NAME, read_sweep_report
from edgeprune.showing import in_short


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A sweep: folders of the cells that are done, and why others failed, both by name."""

    name: str
    done: Mapping[str, Path]
    failed: Mapping[str, str]

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of all cells."""
        return (*self.done, *self.failed)


def is_sweep(given: str | Path) -> bool:
    """Whether a path is the output folder of a sweep, or its ``sweep.json``."""
    path = Path(given)
    return path.name == SWEEP_NAME if path.is_file() else (path / SWEEP_NAME).is_file()


def read_sweeps(given: Sequence[str | Path]) -> tuple[Swept, ...]:
    """The sweeps that all paths name.

    Raises:
        UsageError: one of them is none, or its ``sweep.json`` cannot be read.
    """
    for path in given:
        if not is_sweep(path):
            one = next(each for each in given if is_sweep(each))
            raise UsageError(
                f"{str(one)!r} is a sweep and {str(path)!r} is not; accepted are sweeps alone, or folders of "
                "single cells, which are in cells/ of a sweep"
            )
    return tuple(map(_read, given))


def _read(given: str | Path) -> Swept:
    folder = Path(given).parent if Path(given).is_file() else Path(given)
    report = read_sweep_report(folder / SWEEP_NAME)
    return Swept(
        name=str(given),
        done={cell.name: _place(folder, cell) for cell in report.cells if cell.state is CellState.DONE},
        failed={cell.name: cell.failure or "" for cell in report.failed},
    )


def _place(sweep: Path, cell: CellReport) -> Path:
    place = Path(cell.folder or "")
    if place.is_absolute() or ".." in place.parts:
        raise UsageError(
            f"{str(sweep / SWEEP_NAME)!r} has the cell {in_short(cell.name)} in {in_short(cell.folder)}; "
            "accepted are folders within that of the sweep"
        )
    return sweep / place
