"""A device behind a connection that lasts as long as a command, and how what runs there can end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from edgeprune.errors import DeviceError
from edgeprune.options.devices import DeviceOptions

JOB_NAME, RESULT_NAME, SCRIPT_NAME = "job.json", "result.json", "measure.py"
SCRIPT_NAMES = (SCRIPT_NAME, "sampling.py", "device_state.py")
"""The script and what it imports."""
FAILED_STATUS = 3
"""Exit status of the script where it has written what went wrong."""
_OUT_OF_MEMORY = re.compile(
    r"MemoryError|bad_alloc|Cannot allocate memory|Killed|Out of memory", re.IGNORECASE
)
_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|File too large", re.IGNORECASE)
_KILL_STATUSES = frozenset({-9, 137})


class Device(Protocol):
    """Runs measuring jobs; made by :func:`connected`."""

    @property
    def name(self) -> str:
        """As in messages and reports."""
        ...

    def measure(self, job: bytes, files: Mapping[str, Path], *, time_limit_s: float) -> bytes:
        """Run a job (``docs/devices.md``) on models that ``files`` has by their names in the job; its result.

        A name stands for one content as long as the connection lasts, so that it is copied once.

        Raises:
            DeviceError: the device is gone, has no room or memory, or takes longer than ``time_limit_s``.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended: its status (negative for a signal), and what it said last."""

    status: int
    timed_out: bool
    lines: tuple[str, ...]


@contextmanager
def connected(options: DeviceOptions | None) -> Iterator[Device | None]:
    """The device for the block, ``None`` for ``None``; nothing stays there behind it.

    Raises:
        DeviceError: it cannot be reached, or cannot run models.
    """
    if options is None:
        yield None
    elif options.adb is not None:
        from edgeprune.devices.adb import adb_device

        with adb_device(options) as device:
            yield device
    else:
        from edgeprune.devices.ssh.device import ssh_device

        with ssh_device(options) as device:
            yield device


def script_text(name: str) -> str:
    """Source of a script that runs on devices."""
    return resources.files("edgeprune.devices").joinpath("script", name).read_text(encoding="utf-8")


def check_ended(ended: Ended, device: str, *, time_limit_s: float) -> None:
    """Accept the end of a measurement that has written its result.

    Raises:
        DeviceError: it has not; says why.
    """
    if ended.timed_out:
        raise DeviceError(
            f"the measurement on {device} took longer than {time_limit_s:.0f} s and was ended there; give a "
            "smaller model, or look whether something else keeps the device busy"
        )
    if ended.status in (0, FAILED_STATUS):
        return
    text = "\n".join(ended.lines)
    if ended.status in _KILL_STATUSES or _OUT_OF_MEMORY.search(text):
        raise DeviceError(
            f"the measurement on {device} was killed or refused memory ({_end(ended)}): the model "
            "does not fit "
            "into what is free there; end other programs, or give a smaller model"
        )
    if _NO_ROOM.search(text):
        raise DeviceError(f"{device} has no room for the result ({_end(ended)}); make room there")
    raise DeviceError(f"the measurement on {device} failed ({_end(ended)})")


def _end(ended: Ended) -> str:
    how = f"signal {-ended.status}" if ended.status < 0 else f"status {ended.status}"
    last = last_line(ended.lines)
    return f"{how}, {last}" if last else how


def last_line(lines: Sequence[str]) -> str:
    """The last line that says anything, or nothing."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
