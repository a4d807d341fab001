"""Stage times of the earlier sessions of a resumed run."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.artifacts.latency import StageTime
from edgeprune.errors import OutputError, UsageError
from edgeprune.storage.documents import UnreadableError
from edgeprune.storage.files import atomic_write_bytes
from edgeprune.storage.records import read_record, write_record

SESSIONS_NAME = "sessions.json"
"""Journal file with the times so far; it holds no results to resume from."""


class Sessions:
    """Stage times of the run's earlier sessions, in ``SESSIONS_NAME`` of its journal.

    A session that was killed leaves those of its finished stages.

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
        """Store the stage times of this session so far, once there is a journal."""
        if self._path.parent.is_dir():
            stages = [to_jsonable(stage) for stage in self.with_earlier(times)]
            with contextlib.suppress(OutputError):  # essential files are written, or fail, elsewhere
                write_record(self._path, {"number": self.number, "stages": stages})

    def forget(self) -> None:
        """Restore the file: a session that was refused does not count."""
        if not self._path.parent.is_dir():
            return
        with contextlib.suppress(OutputError, OSError):
            if self._before is None:
                self._path.unlink(missing_ok=True)
            else:
                atomic_write_bytes(self._path, self._before)

    def with_earlier(self, times: tuple[StageTime, ...]) -> tuple[StageTime, ...]:
        """Sum of ``times`` of this session and those of the earlier ones for each stage."""
        sums: dict[str, float] = {}
        for stage_time in (*self.earlier, *times):
            sums[stage_time.stage] = sums.get(stage_time.stage, 0.0) + stage_time.duration_s
        return tuple(StageTime(stage=name, duration_s=seconds) for name, seconds in sums.items())
