"""Sizes that an ONNX file leaves open are those of the calibration images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx_models import plain
from torch import nn

from edgeprune.errors import ModelLoadError
from edgeprune.loading.open_sizes import open_sizes


@pytest.mark.parametrize(
    ("dims", "sizes"),
    [
        (("n", 3, "h", "w"), (3, None, None)),
        (("n", 3, 8, "w"), (3, 8, None)),
        ((1, "c", "h", "w"), (None, None, None)),
        (("n", 3, 8, 8), None),
        (("n", "c"), None),
    ],
)
def test_sizes_that_a_file_leaves_open(tmp_path: Path, dims: tuple[Any, ...], sizes: Any) -> None:
    assert open_sizes(plain(tmp_path / "x.onnx", dims=dims)) == sizes
    assert open_sizes(str(tmp_path / "x.onnx")) == sizes


def test_other_sources_leave_none_open(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    for source in (
        nn.Linear(1, 1),
        "torchvision:resnet18",
        tmp_path,
        tmp_path / "none.onnx",
        tmp_path / "x.txt",
    ):
        assert open_sizes(source) is None


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = plain(tmp_path / "x.onnx", dims=("n", 3, "h", "w"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ModelLoadError):
        open_sizes(path)
