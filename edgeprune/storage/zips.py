"""Check that a zip archive is intact, unambiguous and of plausible unpacked size."""

from __future__ import annotations

import io
import re
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_END, _END_BYTES = b"PK\x05\x06", 22
_END64, _END64_BYTES = b"PK\x06\x06", 56
_LOCATOR64, _LOCATOR64_BYTES = b"PK\x06\x07", 20
_LOCAL, _LOCAL_BYTES = b"PK\x03\x04", 30
_ENCRYPTED = 0x1
_NAME = re.compile(r"[ -\[\]-~]{1,512}")
"""Printable ASCII without the backslash: torch names members by the file that it saves to."""
_CHUNK_BYTES = 1 << 20

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, struct.error)
"""Errors of Python's reader on damaged archives, bad name encodings and future versions included."""
ARRAY_DAMAGE = (
    *DAMAGE,
    *(LookupError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError, tokenize.TokenError),
)
"""Errors of NumPy's ``.npz`` reader, which also evaluates array headers as Python literals."""
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ZipLimits:
    """Limit of the unpacked size: ``free_bytes`` plus ``ratio`` times the size of the file."""

    free_bytes: int
    ratio: int
    members: int = 100_000


MODEL_LIMITS = ZipLimits(free_bytes=256 * _MIB, ratio=20)
"""torch stores weights uncompressed, so a file of 1 GB unpacks to 1 GB. Twenty times allows for archives
that were compressed again; beyond it a file of a few megabytes could fill the memory."""

IMAGE_LIMITS = ZipLimits(free_bytes=256 * _MIB, ratio=100)
"""Photographs hardly compress, drawings and masks of few colours up to a hundredfold."""


class ZipFaultError(Exception):
    """Invalid archive; the message is the end of a sentence that begins with its name."""


def is_zip(file: Path | IO[bytes]) -> bool:
    """Whether a file ends as an archive does, damaged ones included.

    ``zipfile.is_zipfile`` itself raises where a locator of the zip64 form names several disks.
    """
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:
        return True


def check_zip(path: Path, limits: ZipLimits) -> None:
    """Read every byte of an archive once, in bounded memory, and compare it with its directory.

    Different readers of one file see the same members: members do not overlap, and nothing before the first
    or behind the directory could be taken for another one. Unused bytes between members are allowed.

    Raises:
        ZipFaultError: a checksum or a size is wrong, members overlap, or it unpacks to too much.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        check_zip_stream(stream, limits)


def check_zip_stream(stream: IO[bytes], limits: ZipLimits) -> None:
    """Check an archive inside another one, as :func:`check_zip` does.

    Raises:
        ZipFaultError: see :func:`check_zip`.
    """
    size_bytes = stream.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(stream) as archive:
            _check_end(stream, size_bytes)
            members = archive.infolist()
            _check_amounts(members, size_bytes, limits)
            _check_places(stream, members, archive.start_dir)
            for member in members:
                _check_content(archive, member)
    except DAMAGE as error:
        raise ZipFaultError(f"is a damaged archive ({error})") from error


def _check_end(stream: IO[bytes], size_bytes: int) -> None:
    """Check that the directory ends where its end record, at the end of the file, says."""
    place = size_bytes - _END_BYTES
    stream.seek(place)
    end = stream.read(_END_BYTES)
    if end[:4] != _END or end[-2:] != b"\0\0":
        raise ZipFaultError("is an archive with something behind its directory")
    length, offset = struct.unpack("<LL", end[12:20])
    before = place - _LOCATOR64_BYTES - _END64_BYTES
    if before >= 0:
        stream.seek(before)
        record = stream.read(_END64_BYTES + _LOCATOR64_BYTES)
        locator = record[_END64_BYTES:]
        if locator[:4] == _LOCATOR64:
            if record[:4] != _END64 or struct.unpack("<Q", locator[8:16]) != (before,):
                raise ZipFaultError("is an archive with two directories")
            length, offset = struct.unpack("<QQ", record[40:56])
            place = before
    if offset + length != place:
        raise ZipFaultError("is an archive with two directories")


def _check_amounts(members: list[zipfile.ZipInfo], size_bytes: int, limits: ZipLimits) -> None:
    if len(members) > limits.members:
        raise ZipFaultError(f"has {len(members)} members, and at most {limits.members} are accepted")
    names: set[str] = set()
    for member in members:
        name = member.orig_filename
        if not _NAME.fullmatch(name):
            raise ZipFaultError(f"has a member with an unusual name ({ascii(name)[:60]})")
        if name.lower() in names:
            raise ZipFaultError(f"has two members of the same name ({name[:60]!r})")
        names.add(name.lower())
        if member.flag_bits & _ENCRYPTED:
            raise ZipFaultError(f"has an encrypted member ({name[:60]!r})")
        if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ZipFaultError(f"has a member of an unknown compression ({name[:60]!r})")
    unpacked = sum(member.file_size for member in members)
    accepted = limits.free_bytes + limits.ratio * size_bytes
    if unpacked > accepted:
        raise ZipFaultError(
            f"has {size_bytes / _MIB:.1f} MiB and unpacks to {unpacked / _MIB:.0f} MiB, and at most "
            f"{accepted / _MIB:.0f} MiB are accepted for its size"
        )


def _check_places(stream: IO[bytes], members: list[zipfile.ZipInfo], directory: int) -> None:
    """Check that members do not overlap, start at offset 0 and agree with their local headers."""
    free = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        if member.header_offset < free or (free == 0 and member.header_offset != 0):
            raise ZipFaultError(f"has members that overlap ({member.filename[:60]!r})")
        stream.seek(member.header_offset)
        header = stream.read(_LOCAL_BYTES)
        if header[:4] != _LOCAL:
            raise ZipFaultError(f"has a member that is not where it should be ({member.filename[:60]!r})")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        if stream.read(name_length) != member.orig_filename.encode("ascii"):
            raise ZipFaultError(f"has a member of two names ({member.filename[:60]!r})")
        free = member.header_offset + _LOCAL_BYTES + name_length + extra_length + member.compress_size
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise ZipFaultError(f"has a member of two sizes ({member.filename[:60]!r})")
    if free > directory:
        raise ZipFaultError("has members that overlap its directory")


def _check_content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    read = 0
    with archive.open(member) as content:
        while chunk := content.read(_CHUNK_BYTES):
            read += len(chunk)
    if read != member.file_size:
        raise ZipFaultError(
            f"is a damaged archive ({member.filename[:60]!r} has {read} of {member.file_size} bytes)"
        )
