"""Models with several inputs as typed: arrays by name in the calibration data, constants with ``--input``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from small_project import digits_like, sentence

COMMON = ("small.pt", "--arch", "nets.py:two", "--threads", "1", "--target", "rpi4", "--width-quantum", "1")


@pytest.fixture
def pairs(project: Path) -> Path:
    images, labels = digits_like()
    np.savez(project / "pairs.npz", y=images[::-1], x=images, labels=labels)
    np.save(project / "y.npy", np.full((1, 1, 8, 8), 0.25))
    return project


def inputs(path: Path) -> list[tuple[str, list[Any]]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [(each.name, each.shape) for each in session.get_inputs()]


def test_arrays_named_after_the_inputs_are_compressed_and_ranked(edgeprune: Any, pairs: Path, tmp_path: Path):
    done = edgeprune(
        "compress",
        *COMMON,
        "--calibration",
        "pairs.npz",
        "--ratio",
        "0.3",
        "-o",
        str(tmp_path / "out"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["inputs"] == {"x": [1, 8, 8], "y": [1, 8, 8]}
    assert inputs(tmp_path / "out" / "model.onnx") == [("x", ["batch", 1, 8, 8]), ("y", ["batch", 1, 8, 8])]
    assert "Traceback" not in done.stderr
    ranked = edgeprune("rank", *COMMON[:5], "--criterion", "l1", "--calibration", "pairs.npz")
    assert ranked.returncode == 0, ranked.stderr


def test_an_input_may_be_the_same_for_all_images(edgeprune: Any, pairs: Path, tmp_path: Path):
    done = edgeprune(
        "compress", *COMMON, "--calibration", "grey.npz", "--ratio", "0.3", "-o", str(tmp_path / "out"),
        "--input", "y=y.npy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert inputs(tmp_path / "out" / "model.onnx") == [("input", ["batch", 1, 8, 8])]
    assert "same for every image: y 1x1x8x8" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        (("--calibration", "grey.npz"), 5, ("'y'", "--input NAME=FILE.npy")),
        (("--calibration", "grey.npz", "--input", "z=y.npy"), 2, ("the model's inputs are x, y",)),
        (("--calibration", "grey.npz", "--input", "y=none.npy"), 2, ("No such file", "numpy.save")),
        (
            ("--calibration", "pairs.npz", "--precision", "int8"),
            2,
            ("several inputs (x, y)", "fp32 and fp16"),
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_several_inputs_is_one_sentence(
    edgeprune: Any, pairs: Path, tmp_path: Path, given: tuple[str, ...], status: int, words: tuple[str, ...]
):
    done = edgeprune("compress", *COMMON, *given, "--ratio", "0.3", "-o", str(tmp_path / "out"))
    told = sentence(done, status)
    assert all(word in told for word in words), told
    assert not (tmp_path / "out").exists()
