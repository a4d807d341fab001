"""The near side of ``script/keeper.py``: files to a device and programs there, over one channel."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import json
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.devices.connection import Ended, script_text
from edgeprune.errors import DeviceError

if TYPE_CHECKING:
    import asyncssh

MARK = b"edgeprune:"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HEARTBEAT_S = 20.0
_ANSWER_S = 120.0
_GRACE_S = 60.0
_CHUNK_BYTES = 1 << 18
_SHOWN_LINES = 40

OnLine = Callable[[str], None]


class KeeperError(Exception):
    """The device's system refused something; ``number`` is its ``errno``."""

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(reason)
        self.number = number


class KeeperClient:
    """A work folder on a device; :meth:`close`, or the end of the connection, removes it.

    ``device`` names it in messages.
    """

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], device: str) -> None:
        self._process = process
        self._device = device
        self._free = asyncio.Lock()
        self._heart = asyncio.create_task(self._beat())
        self.folder = ""
        self.free_bytes = 0

    @classmethod
    async def start(cls, connection: asyncssh.SSHClientConnection, python: str, device: str) -> KeeperClient:
        """Start the keeper with ``python`` there.

        Raises:
            DeviceError: no folder can be made there, or the connection is lost.
        """
        source = base64.b64encode(script_text("keeper.py").encode()).decode()
        program = f"import base64;exec(base64.b64decode('{source}'))"
        process = await connection.create_process(
            f"exec {shlex.quote(python)} -c {shlex.quote(program)}", encoding=None
        )
        client = cls(process, device)
        try:
            answer = await client._answer()
        except KeeperError as error:
            await client.close()
            raise DeviceError(client.refused("make a folder", error)) from error
        except BaseException:
            await client.close()
            raise
        client.folder, client.free_bytes = str(answer["folder"]), int(answer["free_bytes"])
        return client

    def refused(self, what: str, error: KeeperError) -> str:
        """The sentence for what the device's system refused."""
        if error.number in NO_ROOM:
            where = f" (in {self.folder})" if self.folder else ""
            return (
                f"{self._device} has no room to {what}{where}: {error}; make room there (a full disk, "
                "a quota "
                "or a limit on the size of files)"
            )
        return f"{self._device} cannot {what} ({error}); set XDG_CACHE_HOME there to a folder with room"

    async def put(self, name: str, content: bytes) -> None:
        """Copy a file into the folder.

        Raises:
            DeviceError: no room, or the connection is lost.
        """
        async with self._free:
            self._write(json.dumps({"put": name, "size_bytes": len(content)}).encode() + b"\n")
            for start in range(0, len(content), _CHUNK_BYTES):
                self._write(content[start : start + _CHUNK_BYTES])
                await self._drain()
            await self._told(f"take {name}")

    async def run(self, arguments: Sequence[str], *, time_limit_s: float, on_line: OnLine) -> Ended:
        """Run a program in the folder, its lines going to ``on_line``.

        Raises:
            DeviceError: the connection is lost, or the program cannot be started.
        """
        lines: list[str] = []
        async with self._free:
            self._write(json.dumps({"run": list(arguments), "time_limit_s": time_limit_s}).encode() + b"\n")
            await self._drain()
            ends_at = asyncio.get_running_loop().time() + time_limit_s + _GRACE_S
            while True:
                left_s = ends_at - asyncio.get_running_loop().time()
                answer = await self._told(f"run {arguments[0]}", left_s)
                if "ended" in answer:
                    return Ended(
                        status=int(answer["ended"]),
                        timed_out=bool(answer["timed_out"]),
                        lines=tuple(lines[-_SHOWN_LINES:]),
                    )
                lines.append(str(answer["line"]))
                on_line(lines[-1])

    async def get(self, name: str) -> bytes:
        """Content of a file of the folder.

        Raises:
            DeviceError: there is none, or the connection is lost.
        """
        async with self._free:
            self._write(json.dumps({"get": name}).encode() + b"\n")
            answer = await self._told(f"give {name}")
            try:
                return bytes(await self._process.stdout.readexactly(int(answer["size_bytes"])))
            except asyncio.IncompleteReadError as error:
                raise self._cut() from error

    async def remove(self, name: str) -> None:
        """Remove a file of the folder."""
        await self._command({"remove": name}, f"remove {name}")

    async def keep(self, name: str, kept_as: str) -> str:
        """Move a part of the folder to where later connections find it; its path there."""
        return str((await self._command({"keep": name, "as": kept_as}, f"keep {name}"))["kept"])

    async def close(self) -> None:
        """End the keeper, which removes its folder, and wait for that."""
        self._heart.cancel()
        with contextlib.suppress(Exception):
            self._process.stdin.write_eof()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._process.wait_closed(), _GRACE_S / 2)
        with contextlib.suppress(Exception):
            self._process.close()

    async def _command(self, command: dict[str, Any], what: str) -> dict[str, Any]:
        async with self._free:
            self._write(json.dumps(command).encode() + b"\n")
            return await self._told(what)

    async def _told(self, what: str, within_s: float = _ANSWER_S) -> dict[str, Any]:
        """The next answer.

        Raises:
            DeviceError: the device's system refused, in a sentence; or no answer.
        """
        try:
            return await self._answer(within_s)
        except KeeperError as error:
            raise DeviceError(self.refused(what, error)) from error

    async def _answer(self, within_s: float = _ANSWER_S) -> dict[str, Any]:
        while True:
            try:
                line = await asyncio.wait_for(self._process.stdout.readline(), max(1.0, within_s))
            except TimeoutError as error:
                raise DeviceError(
                    f"{self._device} has not answered for {within_s:.0f} s; check that it still runs and is "
                    "not swapping"
                ) from error
            except Exception as error:
                raise self._cut() from error
            if not line:
                raise self._cut()
            if not line.startswith(MARK):
                continue  # what a shell's own files print
            answer: dict[str, Any] = json.loads(line[len(MARK) :])
            if "error" in answer:
                raise KeeperError(str(answer["error"]), int(answer["errno"]))
            return answer

    def _cut(self) -> DeviceError:
        status = self._process.exit_status
        if status is not None and self._process.exit_signal is None and status != 0:
            return DeviceError(
                f"Python on {self._device} ended with status {status} before it answered; try 'python3 -c 1' "
                "there"
            )
        if self._process.exit_signal is not None:
            return DeviceError(
                f"{self._device} killed what watches over the measurement (signal "
                f"{self._process.exit_signal[0]}), as when memory runs out; free some there"
            )
        return DeviceError(
            f"the connection to {self._device} was cut; what ran there ends by itself and its files are "
            "removed: check the network and the power supply, then run the same command again"
        )

    def _write(self, content: bytes) -> None:
        try:
            self._process.stdin.write(content)
        except Exception as error:
            raise self._cut() from error

    async def _drain(self) -> None:
        try:
            await self._process.stdin.drain()
        except Exception as error:
            raise self._cut() from error

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            if self._process.is_closing():
                return
            with contextlib.suppress(Exception):
                self._process.stdin.write(b'{"alive": true}\n')
