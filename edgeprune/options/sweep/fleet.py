"""``[[devices]]`` of a sweep file: where the cells of a sweep are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen

from edgeprune.errors import EdgepruneError
from edgeprune.options.accepted import Text
from edgeprune.options.devices import DeviceOptions
from edgeprune.options.project_file import beside
from edgeprune.options.sweep.names import Name
from edgeprune.showing import in_short
from edgeprune.storage.tables import Expected, TableError, from_table


@dataclass(frozen=True, kw_only=True)
class _DeviceTable:
    """One of ``[[devices]]``, as it is in the file."""

    name: Name
    ssh: Text | None = None
    identity: Text | None = None
    ssh_port: int | None = None
    known_hosts: Text | None = None
    adb: Text | None = None
    targets: Annotated[
        tuple[Text, ...] | None, MinLen(1), Expected("a list of at least one of 'targets' of the sweep")
    ] = None


@dataclass(frozen=True, kw_only=True)
class SweepDevice:
    """A device that measures cells of a sweep: those of ``targets``, as the file has them, or all."""

    name: str
    options: DeviceOptions
    targets: tuple[str, ...] | None = None


def read_devices(
    source: Path, tables: Sequence[dict[str, Any]], targets: Sequence[str]
) -> tuple[SweepDevice, ...]:
    """The devices of a sweep file with these targets.

    Raises:
        TableError: a key or value that is not accepted.
    """
    return tuple(_device(source, place, table, targets) for place, table in enumerate(tables))


def _device(source: Path, place: int, table: dict[str, Any], targets: Sequence[str]) -> SweepDevice:
    where = f"devices[{place}]."
    read = from_table(_DeviceTable, table, inside=where, hyphens=True)
    for target in read.targets or ():
        if target not in targets:
            raise TableError(
                f"has {in_short(target)} in '{where}targets'; accepted are targets of the sweep: "
                f"{', '.join(map(in_short, targets))}"
            )
    files = {
        key: None if path is None else beside(source, str(Path(path).expanduser()))
        for key, path in (("identity", read.identity), ("known_hosts", read.known_hosts))
    }
    try:
        reached = DeviceOptions(ssh=read.ssh, ssh_port=read.ssh_port, adb=read.adb, **files)
    except EdgepruneError as error:
        raise TableError(f"has 'devices[{place}]' that is not accepted: {error}") from error
    measured = None if read.targets is None else tuple(_located(source, each) for each in read.targets)
    return SweepDevice(name=read.name, options=reached, targets=measured)


def _located(source: Path, target: str) -> str:
    return beside(source, target) if target.endswith(".toml") else target
