"""Options of a sweep; see :func:`edgeprune.sweep`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from edgeprune import limits
from edgeprune.artifacts.choices import ExecutorKind
from edgeprune.options.bounds import Bounds
from edgeprune.options.cli_option import CliOption, Panel


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What is swept, where cells run, and where results go."""

    spec: str | Path = field(kw_only=False)
    output: str | Path | None = None
    only: Annotated[
        str | None,
        CliOption(
            metavar="PATTERN",
            help="Cells whose names it fits, such as '*_rpi4_*', as for one job of a matrix. Default: all.",
            panel=Panel.GOAL,
        ),
    ] = None
    max_parallel: Annotated[
        int | None,
        CliOption(
            metavar="N",
            limit=limits.UNITS_AT_ONCE,
            help="Most cells that run at once. Default: what cores and memory allow.",
            panel=Panel.RUN,
        ),
    ] = None
    memory_limit_bytes: Annotated[
        int | None, Bounds(limits.WholeNumbers(least=1, most=2**62), "memory_limit_bytes")
    ] = None
    executor: Annotated[
        ExecutorKind,
        CliOption(
            help="Where cells run: in processes of this machine, or on a cluster of Ray, which needs "
            "pip install 'edgeprune[ray]'.",
            panel=Panel.RUN,
        ),
    ] = ExecutorKind.LOCAL
    ray_address: Annotated[
        str | None,
        CliOption(
            metavar="auto|HOST:PORT",
            help="With --executor ray: a cluster that runs. Default: one on this machine, for the sweep.",
            panel=Panel.RUN,
        ),
    ] = None
    cache: Annotated[
        str | Path | None,
        CliOption(
            metavar="FOLDER",
            kind=Path | None,
            help="Folder of the results that cells share. Default: edgeprune in the user's folder of caches.",
            panel=Panel.RUN,
        ),
    ] = None
    overwrite: bool = False
    resume: Annotated[
        bool,
        CliOption(
            metavar="",
            help="Go on with a sweep that was stopped, or try cells again that failed, from OUTPUT.journal.",
            panel=Panel.RUN,
        ),
    ] = False
    command: str = ""

    @property
    def folder(self) -> Path | None:
        """``output`` as a path."""
        return None if self.output is None else Path(self.output)
