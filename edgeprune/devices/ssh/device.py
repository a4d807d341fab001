"""A device over ssh: one connection, one Python, one work folder for a whole command."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.devices.connection import (
    JOB_NAME,
    RESULT_NAME,
    SCRIPT_NAME,
    SCRIPT_NAMES,
    check_ended,
    script_text,
)
from edgeprune.devices.ssh.connecting import connect
from edgeprune.devices.ssh.environment import find_interpreter, install
from edgeprune.devices.ssh.keeper_client import KeeperClient
from edgeprune.devices.ssh.loop import EventLoop
from edgeprune.options.devices import DeviceOptions
from edgeprune.system import progress

if TYPE_CHECKING:
    import asyncssh

_LOG = logging.getLogger("edgeprune.devices")
_CLOSE_S = 15.0
_REMEMBERED_JOBS = 8
"""A small device has no room for all candidates of a search; the original is in every job."""


@dataclass(kw_only=True)
class _Session:
    """What is open on a device; ``used``: the last job of every model that is there."""

    connection: asyncssh.SSHClientConnection
    keeper: KeeperClient
    python: str
    jobs: int = 0
    used: dict[str, int] = field(default_factory=dict)

    async def forget_old(self) -> None:
        """Begin a job; remove models there that no job has used for a while."""
        self.jobs += 1
        for name in [name for name, job in self.used.items() if job < self.jobs - _REMEMBERED_JOBS]:
            del self.used[name]
            await self.keeper.remove(name)


class SshDevice:
    """Runs measuring jobs over ssh; made by :func:`ssh_device`."""

    def __init__(self, name: str, loop: EventLoop, session: _Session) -> None:
        self.name = name
        self._loop = loop
        self._session = session

    def measure(self, job: bytes, files: Mapping[str, Path], *, time_limit_s: float) -> bytes:
        """Copy what is not there yet, run the job and bring its result back.

        Raises:
            DeviceError: cut off, no room or memory, or longer than ``time_limit_s``.
        """
        with progress.stage(f"measuring on {self.name}"):
            return self._loop.run(self._measure(job, files, time_limit_s))

    async def _measure(self, job: bytes, files: Mapping[str, Path], time_limit_s: float) -> bytes:
        session, keeper = self._session, self._session.keeper
        await session.forget_old()
        for name, path in files.items():
            if name not in session.used:
                await keeper.put(name, path.read_bytes())
            session.used[name] = session.jobs
        await keeper.put(JOB_NAME, job)
        ended = await keeper.run(
            [session.python, SCRIPT_NAME, JOB_NAME, RESULT_NAME],
            time_limit_s=time_limit_s,
            on_line=lambda line: _LOG.info("%s: %s", self.name, line),
        )
        check_ended(ended, self.name, time_limit_s=time_limit_s)
        result = await keeper.get(RESULT_NAME)
        await keeper.remove(RESULT_NAME)
        return result


@contextmanager
def ssh_device(options: DeviceOptions) -> Iterator[SshDevice]:
    """Connect, find or install what measures, and hold a work folder there for the block.

    Raises:
        DeviceError: unreachable, not let in, or without a Python that runs models.
    """
    loop = EventLoop()
    try:
        with progress.stage(f"connecting to {options.name}"):
            session = loop.run(_open(options))
        try:
            yield SshDevice(options.name, loop, session)
        finally:
            loop.run(_close(session))
    finally:
        loop.close()


async def _open(options: DeviceOptions) -> _Session:
    def on_line(line: str) -> None:
        _LOG.info("%s: %s", options.name, line)

    connection = await connect(options)
    try:
        python = await find_interpreter(connection, options.name)
        keeper = await KeeperClient.start(connection, python.path, options.name)
        try:
            path = python.path if python.measures else await install(keeper, python, options.name, on_line)
            for name in SCRIPT_NAMES:
                await keeper.put(name, script_text(name).encode())
        except BaseException:
            await asyncio.shield(keeper.close())
            raise
    except BaseException:
        connection.abort()
        raise
    return _Session(connection=connection, keeper=keeper, python=path)


async def _close(session: _Session) -> None:
    """Have the keeper remove its folder, wait for that, then hang up."""
    await session.keeper.close()
    session.connection.close()
    with contextlib.suppress(Exception):
        await asyncio.wait_for(session.connection.wait_closed(), _CLOSE_S)
