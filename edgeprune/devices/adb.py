"""A device over adb: the same job by ``adb push``, ``adb shell`` and ``adb pull``."""

from __future__ import annotations

import contextlib
import logging
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgeprune.devices.connection import (
    JOB_NAME,
    RESULT_NAME,
    SCRIPT_NAME,
    SCRIPT_NAMES,
    Ended,
    check_ended,
    last_line,
    script_text,
)
from edgeprune.errors import DeviceError
from edgeprune.options.devices import DeviceOptions
from edgeprune.storage.files import scratch_folder
from edgeprune.system import progress

_LOG = logging.getLogger("edgeprune.devices")
_ADB_S = 120.0
_GRACE_S = 30.0
_PLACE = "/data/local/tmp"
_TERMUX = "/data/data/com.termux/files/usr/bin/python3"
_TIMEOUT_STATUSES = frozenset({124, 137})
_STATUS_MARK = "edgeprune-status:"
_FIND = (
    f"export ORT_DISABLE_TELEMETRY=1; for p in python3 {_PLACE}/python3 {_PLACE}/python/bin/python3 "
    f"{_TERMUX}; do "
    'command -v "$p" >/dev/null 2>&1 && "$p" -c "import sys; sys.exit(sys.version_info < (3, 9))" '
    '&& "$p" -c "import numpy, onnxruntime" && echo "edgeprune-python:$p" && break; done; true'
)


class AdbDevice:
    """Runs measuring jobs over adb; made by :func:`adb_device`."""

    def __init__(self, serial: str, folder: str, python: str) -> None:
        self.name = f"adb:{serial}"
        self._serial = serial
        self._folder = folder
        self._python = python
        self._copied: set[str] = set()

    def measure(self, job: bytes, files: Mapping[str, Path], *, time_limit_s: float) -> bytes:
        """Push what is not there yet, run the job and pull its result.

        Raises:
            DeviceError: the device is gone, has no room or memory, or takes longer than ``time_limit_s``.
        """
        with progress.stage(f"measuring on {self.name}"), scratch_folder() as scratch:
            for name, path in files.items():
                if name not in self._copied:
                    self._push(path, name)
                    self._copied.add(name)
            (scratch / JOB_NAME).write_bytes(job)
            for name in SCRIPT_NAMES:
                (scratch / name).write_text(script_text(name), encoding="utf-8")
            for name in (JOB_NAME, *SCRIPT_NAMES):
                self._push(scratch / name, name)
            check_ended(self._run(time_limit_s), self.name, time_limit_s=time_limit_s)
            result = scratch / RESULT_NAME
            _adb(self._serial, "pull", f"{self._folder}/{RESULT_NAME}", str(result))
            return result.read_bytes()

    def _push(self, path: Path, name: str) -> None:
        _adb(self._serial, "push", str(path), f"{self._folder}/{name}")

    def _run(self, time_limit_s: float) -> Ended:
        """Run the script; ``timeout`` there ends it also where the connection does not last."""
        script = shlex.join([self._python, SCRIPT_NAME, JOB_NAME, RESULT_NAME])
        command = (
            f"export ORT_DISABLE_TELEMETRY=1; cd {self._folder} && rm -f {RESULT_NAME} && timeout -s "
            f"KILL {time_limit_s:.0f} {script} 2>&1; "
            f"echo {_STATUS_MARK}$?"
        )
        began_s = time.monotonic()
        try:
            done = _call(self._serial, "shell", command, timeout_s=time_limit_s + _GRACE_S)
        except subprocess.TimeoutExpired:
            return Ended(status=-9, timed_out=True, lines=())
        lines = done.stdout.splitlines()
        for line in lines:
            _LOG.info("%s: %s", self.name, line)
        told = [line for line in lines if line.startswith(_STATUS_MARK)]
        if not told:
            raise DeviceError(
                f"the connection to {self.name} was cut "
                f"({last_line((done.stdout + done.stderr).splitlines())}"
                "); check the cable, then run the same command again"
            )
        status = int(told[-1].removeprefix(_STATUS_MARK))
        timed_out = status in _TIMEOUT_STATUSES and time.monotonic() - began_s >= time_limit_s
        return Ended(status=status, timed_out=timed_out, lines=tuple(lines[-40:-1]))


@contextmanager
def adb_device(options: DeviceOptions) -> Iterator[AdbDevice]:
    """Hold a work folder on a device for the block.

    Raises:
        DeviceError: no adb here, no such device, or no Python with numpy and onnxruntime there.
    """
    serial = str(options.adb)
    if shutil.which("adb") is None:
        raise DeviceError(
            "there is no 'adb' on this machine's PATH; install Android's platform tools, or measure "
            "over --ssh"
        )
    with progress.stage(f"connecting to adb:{serial}"):
        _adb(serial, "get-state")
        python = _find_python(serial)
        old = f"find {_PLACE} -maxdepth 1 -name 'edgeprune-*' -mtime +1 -exec rm -rf {{}} +"
        made = _adb(serial, "shell", f"{old} 2>/dev/null; mktemp -d {_PLACE}/edgeprune-XXXXXX")
    folder = last_line(made.splitlines())
    if not folder.startswith(f"{_PLACE}/edgeprune-"):
        raise DeviceError(f"adb:{serial} makes no folder in {_PLACE} ({folder}); make room there")
    try:
        yield AdbDevice(serial, folder, python)
    finally:
        with contextlib.suppress(DeviceError):
            _adb(serial, "shell", f"rm -rf {folder}")


def _find_python(serial: str) -> str:
    mark = "edgeprune-python:"
    output = _adb(serial, "shell", _FIND)
    paths = [line.removeprefix(mark) for line in output.splitlines() if line.startswith(mark)]
    if not paths:
        raise DeviceError(
            f"adb:{serial} has no Python of 3.9 or later with numpy and onnxruntime that adb may run; "
            "put one "
            f"into {_PLACE}/python, or install Python and openssh in Termux and measure with --ssh HOST:8022"
        )
    return paths[0]


def _adb(serial: str, *arguments: str) -> str:
    """Output of an adb command that has to succeed.

    Raises:
        DeviceError: it fails, or takes too long.
    """
    try:
        done = _call(serial, *arguments, timeout_s=_ADB_S)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"'adb {arguments[0]}' on adb:{serial} took longer than {_ADB_S:.0f} s; check the cable"
        ) from error
    if done.returncode != 0:
        raise DeviceError(_failed(serial, arguments[0], last_line((done.stdout + done.stderr).splitlines())))
    return done.stdout


def _failed(serial: str, what: str, said: str) -> str:
    device = f"adb:{serial}"
    if "unauthorized" in said:
        return f"{device} does not trust this machine ({said}); confirm the question on its screen"
    if "not found" in said or "offline" in said or "no devices" in said:
        return f"{device} is not connected ({said}); accepted is a serial number as 'adb devices' lists it"
    if "No space left" in said:
        return f"{device} has no room for what is measured ({said}); make room in {_PLACE}"
    return f"'adb {what}' failed on {device} ({said}); check the cable and its screen"


def _call(serial: str, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    command = ["adb", "-s", serial, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
