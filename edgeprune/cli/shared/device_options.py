"""Options of a device that measures, shared by the commands that measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.shared import options as opt
from edgeprune.errors import UsageError
from edgeprune.options.devices import PORT, DeviceOptions

Ssh = Annotated[
    str | None,
    typer.Option(
        "--ssh",
        metavar="USER@HOST[:PORT]",
        help="Measure on this device over ssh: its address, or a name of ~/.ssh/config. --target names its "
        "profile.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        metavar="FILE",
        help="Private key for --ssh. Default: those of the agent, of ~/.ssh/config and of ~/.ssh.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
SshPort = Annotated[
    int | None,
    typer.Option(
        "--ssh-port",
        metavar="N",
        parser=PORT.reader("--ssh-port"),
        help="Port of --ssh. Default: that of ~/.ssh/config, or 22.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
KnownHosts = Annotated[
    Path | None,
    typer.Option(
        "--known-hosts",
        metavar="FILE",
        help="Host keys that are accepted for --ssh. Default: ~/.ssh/known_hosts and the system's.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Adb = Annotated[
    str | None,
    typer.Option(
        "--adb",
        metavar="SERIAL",
        help="Measure on this Android device over adb, as 'adb devices' lists it.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class DeviceArguments:
    """The device that measures in place of this machine."""

    ssh: Ssh = None
    identity: Identity = None
    ssh_port: SshPort = None
    known_hosts: KnownHosts = None
    adb: Adb = None

    def device_for(self, target: str | None) -> DeviceOptions | None:
        """The device, whose profile is ``target``; ``None`` where none was given.

        Raises:
            UsageError: no profile, or options that do not fit each other.
        """
        given = {
            "--identity": self.identity,
            "--ssh-port": self.ssh_port,
            "--known-hosts": self.known_hosts,
        }
        alone = next((name for name, value in given.items() if value is not None), None)
        if self.ssh is None and self.adb is None:
            if alone is not None:
                raise UsageError(f"{alone} was given without --ssh; accepted is --ssh USER@HOST with it")
            return None
        if target is None:
            option = "--ssh" if self.adb is None else "--adb"
            raise UsageError(
                f"{option} was given without --target; name the profile of the device, which decides "
                "widths and "
                "the 8-bit form ('edgeprune targets list'), or --target host for a machine like this one"
            )
        return DeviceOptions(
            ssh=self.ssh,
            identity=self.identity,
            ssh_port=self.ssh_port,
            known_hosts=self.known_hosts,
            adb=self.adb,
        )
