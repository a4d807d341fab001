"""How long the earlier sessions of a run took that was stopped and goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.artifacts.report import StageTime
from edgeprune.errors import OutputError, UsageError
from edgeprune.storage.documents import UnreadableError
from edgeprune.storage.files import atomic_write_bytes
from edgeprune.storage.records import read_record, write_record

SESSIONS_NAME = "sessions.json"
"""In a journal: how long the run took so far, which is nothing to go on from."""


class Sessions:
    """Stage times of the run's earlier sessions, in ``SESSIONS_NAME`` of its journal.

    A session that was killed outright leaves those of its finished stages.

    Raises:
        UsageError: the file is damaged.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal / SESSIONS_NAME
        self.earlier: tuple[StageTime, ...] = ()
        self.number = 1
        self._before = self._path.read_bytes() if self._path.exists() else None
        if self._before is not None:
            try:
                record = read_record(self._path)
                self.earlier = from_jsonable(tuple[StageTime, ...], record["stages"])
                self.number = int(record["number"]) + 1
            except (UnreadableError, ValueError, TypeError, KeyError) as error:
                raise UsageError(
                    f"{str(self._path)!r} is damaged, so the run cannot go on with it: delete it to count "
                    "the time of this session alone"
                ) from error

    def keep(self, times: tuple[StageTime, ...]) -> None:
        """Write down what this session took so far, once there is a journal."""
        if self._path.parent.is_dir():
            stages = [to_jsonable(stage) for stage in self.with_earlier(times)]
            with contextlib.suppress(OutputError):  # what matters is written, or fails, elsewhere
                write_record(self._path, {"number": self.number, "stages": stages})

    def forget(self) -> None:
        """Leave the file as it was found: a session that was refused is none."""
        if not self._path.parent.is_dir():
            return
        with contextlib.suppress(OutputError, OSError):
            if self._before is None:
                self._path.unlink(missing_ok=True)
            else:
                atomic_write_bytes(self._path, self._before)

    def with_earlier(self, times: tuple[StageTime, ...]) -> tuple[StageTime, ...]:
        """``times`` of this session together with those of the earlier ones, a sum for each stage."""
        sums: dict[str, float] = {}
        for found in (*self.earlier, *times):
            sums[found.stage] = sums.get(found.stage, 0.0) + found.duration_s
        return tuple(StageTime(stage=name, duration_s=seconds) for name, seconds in sums.items())
