"""Images of any size of values: a result, or one sentence on the images; never a fault of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_project import digits_like, sentence

SCALES = (1e12, 1e19, 1e30, 3e38)
COMMANDS = {
    "compress": ("compress", "small.pt", "--arch", "nets.py:small", "--ratio", "0.25", "--target", "rpi4"),
    "rank": ("rank", "small.pt", "--arch", "nets.py:small", "--criterion", "hybrid", "--criterion", "taylor"),
}


def write_images(path: Path, scale: float, kind: str) -> None:
    grey, labels = digits_like()
    images = grey[:, None].astype(np.float32) / 255 * scale
    if kind == "constant":
        images = np.full_like(images, scale)
    elif kind == "one of them":
        images = np.concatenate([images[:1], images[1:] / scale])
    np.savez(path, images=images, labels=labels)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("compress", "constant"),
        *(
            pytest.param(command, kind, marks=pytest.mark.wide)
            for command in COMMANDS
            for kind in ("all", "constant", "one of them")
            if (command, kind) != ("compress", "constant")
        ),
    ],
)
def test_values_of_images_of_any_size(
    command: str, kind: str, project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    told = 0
    for scale in SCALES:
        write_images(tmp_path / "data.npz", scale, kind)
        asked = (*COMMANDS[command], "--calibration", str(tmp_path / "data.npz"), "--effort", "quick")
        done = edgeprune(*asked, "--threads", "1", "-q", "-o", str(tmp_path / f"{scale:g}"))
        assert done.returncode in {0, 3, 4, 6}, (scale, done.stderr)
        if done.returncode:
            assert "images" in sentence(done, done.returncode)
            assert not (tmp_path / f"{scale:g}").exists()
            told += 1
    assert told or kind == "one of them"
