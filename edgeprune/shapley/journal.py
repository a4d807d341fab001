"""Coalition values on disk, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import json
import logging
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from edgeprune.artifacts.arrays import BoolArray, FloatArray
from edgeprune.errors import OutputError, UsageError
from edgeprune.shapley.game import Game, coalition_keys
from edgeprune.showing import in_short

_LOG = logging.getLogger("edgeprune.shapley")
_MAGIC = b"edgeprune coalition values 1\n"
_HEAD = struct.Struct("<II")
_SUM = struct.Struct("<I")


class JournaledGame:
    """A game whose values are written to ``path`` once computed and never asked twice, across runs.

    Estimators see the same game, and ``CountedGame`` around it counts stored values like new ones: an
    interrupted and resumed run gives the same result as an uninterrupted one, limits included. ``asked``
    counts the values really asked. Every block of new values is one record with a checksum, handed to the
    operating system before the values are used, so that the end of the process at any moment costs at most
    the record being written; ``lost_bytes`` of such a torn end are cut off, with a warning. Only offsets
    into the file are held in memory. One process at a time may write.

    Args:
        path: created if missing, together with its folder.
        fingerprint: everything that determines the values besides the coalition: weights, images, loss. A
            file of another fingerprint, or of other numbers of players or images, is refused.

    Raises:
        UsageError: the file belongs to another game, is none of these files, or is damaged before its end.
        OutputError: the file cannot be made or written.
    """

    def __init__(self, game: Game, path: Path, *, fingerprint: str) -> None:
        self._game = game
        self._path = path
        self._row_bytes = 8 * game.num_images
        self._key_bytes = (game.num_players + 7) // 8
        self._places: dict[bytes, int] = {}
        self.asked = 0
        self.lost_bytes = 0
        about: dict[str, int | str] = {
            "players": game.num_players,
            "images": game.num_images,
            "fingerprint": fingerprint,
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: written data reaches the system even if this process ends right after.
            self._file: BinaryIO = path.open("r+b" if path.exists() else "x+b", buffering=0)
        except OSError as error:
            raise OutputError(f"coalition values cannot be kept in {path}: {error.strerror}") from error
        try:
            self._open(about)
        except BaseException:
            self._file.close()
            raise

    @property
    def num_players(self) -> int:
        """Number of players n."""
        return self._game.num_players

    @property
    def num_images(self) -> int:
        """Number of images k."""
        return self._game.num_images

    @property
    def known(self) -> int:
        """Number of coalitions whose values are stored."""
        return len(self._places)

    def values(self, coalitions: BoolArray) -> FloatArray:
        """v(S) of coalitions (m, n) for every image: (m, k).

        Raises:
            ValueError: a new value is not a finite number; nothing of that call is written.
        """
        keys = coalition_keys(coalitions)
        first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self._places}
        if first:
            rows = sorted(first.values())
            values = np.asarray(self._game.values(coalitions[rows]), dtype=np.float64)
            if not np.isfinite(values).all():
                raise ValueError("the game gave values that are not finite numbers: they are not written")
            self.asked += len(rows)
            self._append([keys[row] for row in rows], values)
        return np.stack([self._read(key) for key in keys]) if keys else np.empty((0, self.num_images))

    def close(self) -> None:
        """Close the file; the game cannot be used afterwards."""
        self._file.close()

    def __enter__(self) -> Self:
        """The game itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _open(self, about: dict[str, int | str]) -> None:
        encoded = json.dumps(about, sort_keys=True).encode()
        header = _MAGIC + _HEAD.pack(len(encoded), zlib.crc32(encoded)) + encoded
        size = self._path.stat().st_size
        start = self._file.read(len(header))
        if len(start) < len(header) and header.startswith(start):
            # New, or its first write was cut short.
            self.lost_bytes = len(start)
            self._cut(0)
            write_all(self._file, header)
            return
        if start != header:
            raise UsageError(self._refusal(start))
        end = len(header)
        for whole in self._records(len(header), size):
            end = whole
        if end < size:
            self.lost_bytes = size - end
            _LOG.warning(
                "%s ended in the middle of a record: %d bytes are dropped, %d coalitions are kept",
                self._path, self.lost_bytes, self.known,
            )  # fmt: skip
            self._cut(end)

    def _refusal(self, start: bytes) -> str:
        if not start.startswith(_MAGIC):
            return f"{self._path} is no file of coalition values: give another path"
        self._file.seek(len(_MAGIC))
        length, check = _HEAD.unpack(self._file.read(_HEAD.size).ljust(_HEAD.size, b"\0"))
        encoded = self._file.read(min(length, 2**16))
        if zlib.crc32(encoded) != check:
            return f"{self._path} is damaged at its beginning: delete it, or give another path"
        try:
            other = json.loads(encoded)
            players, images, fingerprint = (other[key] for key in ("players", "images", "fingerprint"))
        except (ValueError, TypeError, KeyError, RecursionError):
            return f"{self._path} is damaged at its beginning: delete it, or give another path"
        return (
            f"{self._path} holds values of another game ({in_short(players)} players, {in_short(images)} "
            f"images, fingerprint {in_short(fingerprint)}): delete it, or give another path"
        )

    def _records(self, place: int, size: int) -> Iterator[int]:
        """Read every complete record; yields the offsets where they end."""
        while place < size:
            self._file.seek(place)
            head = self._file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            count, check = _HEAD.unpack(head)
            if check != zlib.crc32(head[:4]):
                if any(head) or any(self._file.read(size - place)):
                    raise UsageError(self._damaged(place))
                return
            length = count * (self._key_bytes + self._row_bytes)
            end = place + _HEAD.size + length + _SUM.size
            body = self._file.read(length + _SUM.size) if end <= size else b""
            if not body or _SUM.unpack(body[length:])[0] != zlib.crc32(body[:length]):
                if end < size:
                    raise UsageError(self._damaged(place))
                return
            self._take(body, count, place + _HEAD.size)
            place = end
            yield place

    def _damaged(self, place: int) -> str:
        return f"{self._path} is damaged at byte {place}, before its end: delete it to find its values anew"

    def _take(self, body: bytes, count: int, place: int) -> None:
        width = self._key_bytes
        for row in range(count):
            key = body[row * width : (row + 1) * width]
            self._places[key] = place + count * width + row * self._row_bytes

    def _append(self, keys: list[bytes], rows: FloatArray) -> None:
        place = self._file.seek(0, 2)
        body = b"".join(keys) + np.ascontiguousarray(rows, dtype="<f8").tobytes()
        count = struct.pack("<I", len(keys))
        record = count + _SUM.pack(zlib.crc32(count)) + body + _SUM.pack(zlib.crc32(body))
        try:
            write_all(self._file, record)
        except BaseException:
            # A full disk or Ctrl-C: the file is restored, so that a caller can catch it and continue.
            self._cut(place)
            raise
        self._take(body, len(keys), place + _HEAD.size)

    def _cut(self, place: int) -> None:
        self._file.truncate(place)
        self._file.seek(place)

    def _read(self, key: bytes) -> FloatArray:
        self._file.seek(self._places[key])
        return np.frombuffer(self._file.read(self._row_bytes), dtype="<f8").astype(np.float64)


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all of ``data``: an unbuffered file may take only a part of it at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
