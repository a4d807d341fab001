"""Keeps a work folder on a device for as long as a connection lives; runs there, Python 3.9 on, no packages.

Commands are lines of JSON on stdin, with the bytes of a file behind ``put``; answers are lines on stdout that
begin with ``MARK``:

    {"put": NAME, "size_bytes": N}                  {"put": NAME}
    {"run": [ARGUMENT, ...], "time_limit_s": S}     {"line": TEXT} ..., {"ended": STATUS, "timed_out": BOOL}
    {"get": NAME}                                   {"size_bytes": N} and N bytes
    {"remove": NAME}                                {"removed": NAME}
    {"keep": NAME, "as": NAME}                      {"kept": PATH}
    {"alive": true}                                 nothing: the other side is still there

What fails answers {"error": TEXT, "errno": NUMBER}. When stdin ends, when nothing comes for ``SILENCE_S``, or
on a signal, whatever runs is killed and the folder removed: nothing stays on a device that was cut off.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MARK = "edgeprune:"
SILENCE_S = 180.0
ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1", "PIP_NO_CACHE_DIR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
"""Of programs: onnxruntime writes a device number into ~/.cache and sends events otherwise (1.29 on)."""
_CHUNK_BYTES = 1 << 16
_WORK_PREFIX = "work-"


class GoneError(Exception):
    """The other side has left."""


class Keeper:
    """A work folder, and the commands on it; paths count from it."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._buffer = bytearray()
        self._child: subprocess.Popen[bytes] | None = None
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(cache, os.O_RDONLY)
        try:
            _lock(handle, wait=True)
            _remove_abandoned(cache)
            self.folder = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=cache))
            self._held = os.open(self.folder, os.O_RDONLY)
            _lock(self._held, wait=False)
        finally:
            os.close(handle)

    def serve(self) -> None:
        """Answer commands until the other side has left."""
        while True:
            command = json.loads(self._line(SILENCE_S))
            try:
                self._answer(command)
            except OSError as error:
                tell({"error": error.strerror or str(error), "errno": error.errno or 0})

    def close(self) -> None:
        """End what runs and remove the folder; the cache folder, too, where nothing else is in it."""
        self._kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._cache.rmdir()

    def _answer(self, command: dict[str, Any]) -> None:
        if "put" in command:
            self._put(command["put"], command["size_bytes"])
        elif "run" in command:
            self._run(command["run"], command["time_limit_s"])
        elif "get" in command:
            content = (self.folder / command["get"]).read_bytes()
            tell({"size_bytes": len(content)})
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        elif "remove" in command:
            (self.folder / command["remove"]).unlink()
            tell({"removed": command["remove"]})
        elif "keep" in command:
            kept = self._cache / command["as"]
            shutil.rmtree(kept, ignore_errors=True)
            (self.folder / command["keep"]).rename(kept)
            tell({"kept": str(kept)})

    def _put(self, name: str, size_bytes: int) -> None:
        """Write a file; where that fails its bytes are still read, since the next command is behind them."""
        path, left, failure = self.folder / name, size_bytes, None
        with contextlib.ExitStack() as stack:
            stream = None
            try:
                stream = stack.enter_context(path.open("wb", buffering=0))
            except OSError as error:
                failure = error
            while left:
                chunk = memoryview(self._some(left))
                left -= len(chunk)
                while stream is not None and failure is None and chunk:
                    try:
                        chunk = chunk[stream.write(chunk) :]
                    except OSError as error:
                        failure = error
        if failure is not None:
            path.unlink(missing_ok=True)
            raise failure
        tell({"put": name})

    def _run(self, arguments: list[str], time_limit_s: float) -> None:
        """Run a program in the folder and tell its lines, while the other side is still there."""
        ends_at = time.monotonic() + time_limit_s
        self._child = subprocess.Popen(
            arguments, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **ENVIRONMENT, "TMPDIR": str(self.folder)},
        )  # fmt: skip
        stream = self._child.stdout
        assert stream is not None
        output, timed_out, text, heard_at = stream.fileno(), False, b"", time.monotonic()
        while True:
            ready, _, _ = select.select([0, output], [], [], 1.0)
            now = time.monotonic()
            if 0 in ready:
                self._fill()
                heard_at = now
                self._skip_heartbeats()
            if now - heard_at > SILENCE_S:
                raise GoneError
            if output in ready:
                some = os.read(output, _CHUNK_BYTES)
                text = _tell_lines(text + some)
                if not some:
                    break
            if now > ends_at:
                timed_out = True
                break
        if timed_out:
            self._kill()
        status = self._child.wait()
        self._kill()
        tell({"ended": status, "timed_out": timed_out})

    def _skip_heartbeats(self) -> None:
        while b"\n" in self._buffer and self._buffer.startswith(b'{"alive"'):
            del self._buffer[: self._buffer.index(b"\n") + 1]

    def _kill(self) -> None:
        """End the program and what it started."""
        if self._child is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._child.pid, signal.SIGKILL)
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._child.wait(5)

    def _line(self, within_s: float) -> bytes:
        while b"\n" not in self._buffer:
            self._fill(within_s)
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    def _some(self, most: int) -> bytes:
        if not self._buffer:
            self._fill(SILENCE_S)
        some = bytes(self._buffer[:most])
        del self._buffer[:most]
        return some

    def _fill(self, within_s: float = 0.0) -> None:
        ready, _, _ = select.select([0], [], [], within_s)
        some = os.read(0, _CHUNK_BYTES) if ready else b""
        if not some:
            raise GoneError
        self._buffer += some


def tell(answer: dict[str, Any]) -> None:
    """Write an answer."""
    sys.stdout.write(MARK + json.dumps(answer) + "\n")
    sys.stdout.flush()


def _tell_lines(text: bytes) -> bytes:
    *lines, rest = text.replace(b"\r", b"\n").split(b"\n")
    for line in lines:
        if line.strip():
            tell({"line": line.decode("utf-8", "replace").rstrip()})
    return rest


def _lock(handle: int, wait: bool) -> bool:
    """Hold a folder; also true where its file system knows no locks and nobody can tell."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return wait
    return True


def _remove_abandoned(cache: Path) -> None:
    """Remove work folders that nobody holds: of keepers that were killed outright."""
    for folder in cache.glob(_WORK_PREFIX + "*"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                if _lock(handle, wait=False):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def main() -> None:
    """Serve one connection."""

    def leave(_number: int, _frame: object) -> None:
        raise GoneError

    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    try:
        keeper = Keeper(Path(home) / "edgeprune")
    except OSError as error:
        tell({"error": f"{error.filename}: {error.strerror}", "errno": error.errno or 0})
        return
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    try:
        tell({"folder": str(keeper.folder), "free_bytes": shutil.disk_usage(keeper.folder).free})
        keeper.serve()
    except (GoneError, BrokenPipeError):
        pass
    finally:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        keeper.close()
        os._exit(0)  # whoever read stdout may have left


if __name__ == "__main__":
    main()
