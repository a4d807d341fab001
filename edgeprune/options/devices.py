"""Options of a device that measures: where it is, and how it is reached."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from edgeprune import limits
from edgeprune.errors import UsageError
from edgeprune.options.bounds import Bounds, Seed, Threads
from edgeprune.showing import in_short

PORT = limits.WholeNumbers(least=1, most=65_535)
"""Accepted ports of an ssh server."""
_DESTINATION = re.compile(
    r"(?:(?P<user>[^@:\s/-][^@:\s/]*)@)?(?:\[(?P<ipv6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[\w.][\w.-]*))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_SERIAL = re.compile(r"[\w.][\w.:-]*")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """An ssh server; what is ``None`` comes from the user's ``~/.ssh/config``, or its default."""

    user: str | None
    host: str
    port: int | None

    def __str__(self) -> str:
        """``user@host``, with the port where it was given."""
        user = "" if self.user is None else f"{self.user}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}" + ("" if self.port is None else f":{self.port}")


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """A device that measures in place of this machine, over ssh or over adb.

    ``ssh``: ``user@host[:port]`` or a name of ``~/.ssh/config``. ``identity``: file of the private key; those
    of the agent, of the configuration and of ``~/.ssh`` where ``None``. ``known_hosts``: file of accepted
    host keys; the user's and the system's where ``None``. ``adb``: serial number as ``adb devices`` lists it.

    Raises:
        UsageError: neither or both of ``ssh`` and ``adb``, or a value that is not accepted.
    """

    ssh: str | None = None
    identity: str | Path | None = None
    ssh_port: int | None = None
    known_hosts: str | Path | None = None
    adb: str | None = None

    def __post_init__(self) -> None:
        """Check what is given."""
        if (self.ssh is None) == (self.adb is None):
            both = "neither --ssh nor --adb" if self.ssh is None else "both --ssh and --adb"
            raise UsageError(f"{both} was given; accepted is one of them, the device to measure on")
        if self.ssh_port is not None:
            PORT.check("--ssh-port", self.ssh_port)
        if self.ssh is None:
            self._check_adb()
            return
        _ = self.destination
        for option, path in (("--identity", self.identity), ("--known-hosts", self.known_hosts)):
            if path is not None and not Path(path).expanduser().is_file():
                raise UsageError(f"{option} {in_short(str(path))} is no file; give the path of one")

    def _check_adb(self) -> None:
        if self.adb is None or _SERIAL.fullmatch(self.adb) is None:
            raise UsageError(
                f"--adb {in_short(self.adb)} was given; accepted is a serial number as 'adb devices' lists it"
            )
        for option, value in (
            ("--identity", self.identity),
            ("--ssh-port", self.ssh_port),
            ("--known-hosts", self.known_hosts),
        ):
            if value is not None:
                raise UsageError(f"{option} was given with --adb; accepted is --ssh with it")

    @property
    def destination(self) -> Destination:
        """The parts of ``ssh``, with the port of either option.

        Raises:
            UsageError: it is no destination, or names another port than ``ssh_port``.
        """
        parts = _DESTINATION.fullmatch(self.ssh or "")
        if parts is None:
            raise UsageError(
                f"--ssh {in_short(self.ssh)} was given; accepted is user@host, user@host:port or a name of "
                "~/.ssh/config"
            )
        port = None if parts["port"] is None else int(parts["port"])
        if port is not None:
            PORT.check("the port of --ssh", port)
        if None not in (port, self.ssh_port) and port != self.ssh_port:
            raise UsageError(
                f"--ssh {in_short(self.ssh)} and --ssh-port {self.ssh_port} name two ports; give one of them"
            )
        return Destination(
            user=parts["user"], host=parts["ipv6"] or parts["host"], port=port or self.ssh_port
        )

    @property
    def name(self) -> str:
        """How the device is called in messages and reports."""
        return str(self.destination) if self.adb is None else f"adb:{self.adb}"


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """Options of a bundle that a device without a network measures; see :func:`edgeprune.bundle`."""

    models: Sequence[str | Path] = field(kw_only=False)
    output: str | Path
    threads: Threads = None
    batch_size: Annotated[int | None, Bounds(limits.BATCH_SIZE, "--batch-size")] = None
    time_limit_s: Annotated[float | None, Bounds(limits.TIME_S, "time_limit_s")] = None
    overwrite: bool = False
    seed: Seed = 0
