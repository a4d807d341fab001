"""JSON and TOML that others wrote: a value, or the reason why there is none, whatever is in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.storage.documents import UnreadableError, read_json, read_toml

DEEP = [f"{'[' * depth}{']' * depth}" for depth in (1_500, 20_000, 200_000)]
BEYOND = [2**63, -(2**63) - 1, 10**30, 10**400, 16**3_500]  # the last has 4,215 digits
INSIDE = [0, 2**63 - 1, -(2**63), 5]


@pytest.mark.parametrize("text", DEEP, ids=len)
def test_deep_nesting_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(text)
    with pytest.raises(UnreadableError, match="nested more than 64 deep"):
        read_json(path)
    path.write_text(f'{{"a": {text}}}')
    with pytest.raises(UnreadableError, match="nested more than 64 deep"):
        read_json(path)
    path.write_text(f"a = {text}")
    with pytest.raises(UnreadableError, match="nested more than 64 deep"):
        read_toml(path)


@pytest.mark.parametrize("number", BEYOND, ids=lambda n: f"{n.bit_length()} bits")
@pytest.mark.parametrize("write", [str, hex, oct, bin])
def test_whole_numbers_beyond_64_bits_are_a_value_error(number: int, write: object, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if write is str:
        path.write_text(json.dumps({"a": [{"b": number}]}))
        with pytest.raises(UnreadableError, match=r"64 bits|4300 digits"):
            read_json(path)
    elif number > 0:
        path.write_text(f"[a]\nb = [1, {{c = {write(number)}}}]\n")  # type: ignore[operator]
        with pytest.raises(UnreadableError, match="64 bits"):
            read_toml(path)


@pytest.mark.parametrize("number", INSIDE)
def test_others_are_read(number: int, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(json.dumps({"a": [number, 1e30]}))
    assert read_json(path) == {"a": [number, 1e30]}
    path.write_text(f"a = [{number}, 1e30]")
    assert read_toml(path) == {"a": [number, 1e30]}


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"{", b"[1,]", b'"\xff"', b"a = ", b"9" * 6_000], ids=lambda d: repr(d[:8])
)
def test_what_is_neither_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(UnreadableError, match=r"\w"):
        read_json(path)
    if data:  # nothing is an empty table
        with pytest.raises(UnreadableError, match=r"\w"):
            read_toml(path)
