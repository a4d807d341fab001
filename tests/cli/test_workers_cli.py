"""``compress`` and ``rank`` over workers: the files are those of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

WEIGHTS = ("model.onnx", "weights.safetensors", "surgery.json")


def model(project: Path) -> tuple[str, ...]:
    return (
        str(project / "small.pt"), "--arch", f"{project / 'nets.py'}:small",
        "--calibration", str(project / "grey.npz"), "--effort", "quick", "--threads", "1",
    )  # fmt: skip


def test_what_is_compressed_over_workers_is_the_same_byte_for_byte(
    project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    asked = ("compress", *model(project), "--ratio", "0.5", "--no-pictures", "--target", "rpi4")
    asked += ("--effort", "quick")
    for name, more in (("one", ()), ("two", ("--workers", "2"))):
        done = edgeprune(*asked, *more, "-o", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
    for name in WEIGHTS:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert not (tmp_path / "two.journal").exists()


def test_a_criterion_that_is_not_spread_says_so(project: Path, tmp_path: Path, edgeprune: Any) -> None:
    done = edgeprune(
        "rank", *model(project), "--criterion", "l1", "--workers", "2", "-o", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    assert "l1 was computed in one process: workers share the passes of hybrid, layer-shapley" in done.stderr


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--workers", "0"), "--workers 0 was given; accepted is a whole number from 1 to 1024"),
        (("--workers", "2", "--device", "mps"), "--device mps was given, and PyTorch"),
        (("--ray-address", "auto"), "--ray-address was given without --executor ray"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    more: tuple[str, ...], told: str, project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    done = edgeprune("rank", *model(project), *more, "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert told in done.stderr
