"""Archives with a damaged byte in their last records: a sentence each, or the model as it was."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgeprune.errors import EdgepruneError
from edgeprune.loading import load_model
from edgeprune.storage.archives import detect_kind, pickled_globals
from edgeprune.storage.zips import is_zip

TAIL_BYTES = 22 + 20 + 56
"""The end record, the locator of its zip64 form, and that form."""
_SIGNATURE, _DISK, _DISKS = 22 + 20, 22 + 16, 22 + 4
"""Fields of the locator, in bytes before the end of the file."""


def flipped(data: bytes, before_end: int, mask: int = 0xFF) -> bytes:
    damaged = bytearray(data)
    damaged[-before_end] ^= mask
    return bytes(damaged)


def archive(kind: str, folder: Path) -> bytes:
    net, path = nn.Sequential(nn.Linear(4, 4)).eval(), folder / f"good.{kind}"
    if kind == "pt2":
        torch.export.save(torch.export.export(net, (torch.rand(2, 4),)), path)
    elif kind == "script":
        torch.jit.save(torch.jit.script(net), path)
    else:
        torch.save(net.state_dict(), path)
    return path.read_bytes()


def refusal(path: Path, kind: str) -> str:
    """What is said against a file; empty where it is loaded. No errors but our own are expected."""
    options: dict[str, Any] = {}
    if kind == "state":
        (path.parent / "arch_of_ends.py").write_text(
            "from torch import nn\ndef net(): return nn.Sequential(nn.Linear(4, 4))\n"
        )
        options["architecture"] = f"{path.parent / 'arch_of_ends.py'}:net"
    try:
        load_model(path, **options)
    except EdgepruneError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["pt2", "script", "state"])
def test_one_damaged_byte_at_the_end(kind: str, tmp_path: Path) -> None:
    good, path = archive(kind, tmp_path), tmp_path / ("m.pt2" if kind == "pt2" else "m.pt")
    for before_end in range(1, TAIL_BYTES + 1):
        path.write_bytes(flipped(good, before_end))
        assert "\n" not in refusal(path, kind)


@pytest.mark.parametrize("field", [_DISK, _DISKS])
def test_an_archive_of_several_disks_is_a_damaged_one(field: int, tmp_path: Path) -> None:
    good, path = archive("state", tmp_path), tmp_path / "m.pt"
    assert good[-_SIGNATURE:][:4] == b"PK\x06\x07"
    path.write_bytes(flipped(good, field, 0x02))
    assert is_zip(path)
    assert is_zip(io.BytesIO(path.read_bytes()))
    assert pickled_globals(path) == ()
    with pytest.raises(EdgepruneError, match="damaged archive"):
        detect_kind(path)


@pytest.mark.parametrize("field", [_DISK, _DISKS])
def test_a_nested_archive_of_several_disks_is_a_damaged_one(field: int, tmp_path: Path) -> None:
    """Weights of an exported program are archives of their own."""
    archive("pt2", tmp_path)
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, stream)
    with (
        zipfile.ZipFile(tmp_path / "good.pt2") as good,
        zipfile.ZipFile(tmp_path / "m.pt2", "w") as changed,
    ):
        for name in good.namelist():
            changed.writestr(name, good.read(name))
        folder = good.namelist()[0].partition("/")[0]
        changed.writestr(f"{folder}/data/constants/c.pt", flipped(stream.getvalue(), field, 0x02))
    with pytest.raises(EdgepruneError, match="damaged archive"):
        load_model(tmp_path / "m.pt2")
