"""Archives of some hundred kilobytes that unpack to hundreds of megabytes: no waiting, little memory."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz_judge import documented_statuses, faults
from fuzz_runner import observe

MIB = 1 << 20
COMPRESS = ("compress", "--target", "rpi4", "--dry-run", "-q")


def packed(source: Path, path: Path, size_bytes: int) -> None:
    """The archive packed anew, with a member of zeros more that has the size but takes next to no room."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        with new.open(f"{old.namelist()[0].partition('/')[0]}/data/more", "w") as member:
            for _ in range(size_bytes // MIB):
                member.write(bytes(MIB))


@pytest.mark.parametrize("kind", ["pt", "pt2", "npz", "npz of floats", "npz that grows"])
def test_a_small_archive_does_not_fill_the_memory(kind: str, seeds: Path, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    small = (str(seeds / "small.pt"), "--arch", f"{seeds / 'nets.py'}:small")
    status = 3 if kind in ("pt", "pt2") else 4
    if kind == "pt":
        packed(seeds / "small.pt", folder / "bomb.pt", 300 * MIB)
        command = ("inspect", "bomb.pt", *small[1:], "--input-shape", "1x8x8", "-q")
    elif kind == "pt2":
        packed(seeds / "dynamic.pt2", folder / "bomb.pt2", 300 * MIB)
        command = ("inspect", "bomb.pt2", "-q")
    else:
        images = {
            "npz": np.zeros((300, 1024, 1024), np.uint8),
            "npz of floats": np.zeros((40, 1024, 1024), np.float64),
            "npz that grows": np.zeros((190, 3, 512, 512), np.uint8),  # to floats, of 32 bits
        }[kind]
        np.savez_compressed(folder / "bomb.npz", images=images)
        command = (*COMPRESS, *small, "--calibration", "bomb.npz")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2 * MIB
    seen = observe(command, folder, tmp_path / "scratch")
    assert (seen.status, faults(seen, documented_statuses())) == (status, []), seen.said
    assert seen.peak_bytes < 1200 * MIB
    assert seen.cpu_s < 20
