"""The digits example: its weights are as good as its README says, and its three files share no image."""

from __future__ import annotations

import re
import runpy
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.artifacts.calibration import CalibrationSet
from edgeprune.calibration import load_calibration
from edgeprune.loading import load_model
from edgeprune.options.cards import load_card

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
FILES = {
    "train": (DIGITS / "digits_train.npz", 1000),
    "test": (DIGITS / "digits_test.npz", 397),
    "calibration": (ROOT / "calibration" / "digits.npz", 400),
}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    loaded = load_model(
        DIGITS / "digits_net.safetensors",
        architecture=f"{DIGITS / 'model.py'}:digits_net",
        input_shape=(1, 8, 8),
    )
    return loaded.module.eval()


def whole(name: str) -> CalibrationSet:
    return load_calibration(FILES[name][0], preprocessing=load_card("digits"), input_shape=(1, 8, 8))


@torch.no_grad()
def right(model: nn.Module, found: CalibrationSet) -> int:
    parts = (found.fitting, found.held_out)
    assert all(part.labels is not None for part in parts)
    return sum(int((model(part.images).argmax(1) == part.labels).sum()) for part in parts)


def test_accuracy_is_what_the_readme_says(model: nn.Module) -> None:
    count = right(model, whole("test"))
    assert count >= 0.98 * 397
    said = re.search(r"(\d+) of 397", (DIGITS / "README.md").read_text(encoding="utf-8"))
    assert said is not None
    assert abs(count - int(said[1])) <= 1, "another processor may turn one image at the border of two classes"


def test_files_have_the_sizes_of_the_split_and_share_no_image() -> None:
    images = {}
    for name, (path, count) in FILES.items():
        with np.load(path, allow_pickle=False) as data:
            assert data["images"].shape == (count, 8, 8)
            assert data["images"].dtype == np.uint8
            assert np.unique(data["labels"]).tolist() == list(range(10))
            images[name] = {image.tobytes() for image in data["images"]}
        assert len(images[name]) == count, f"{name} has an image twice"
        assert path.stat().st_size < 64 << 10
    for a, b in combinations(images, 2):
        assert not images[a] & images[b], f"{a} and {b} share an image"
    assert sum(count for _, count in FILES.values()) == 1797


def test_the_card_has_the_statistics_of_the_training_images() -> None:
    with np.load(FILES["train"][0], allow_pickle=False) as data:
        values = data["images"] / 255
    card = load_card("digits")
    assert card.mean == (round(float(values.mean()), 4),)
    assert card.std == (round(float(values.std()), 4),)


def test_the_shipped_calibration_set_needs_no_option_and_gives_no_warning() -> None:
    found = load_calibration(ROOT / "calibration" / "digits.npz", preprocessing=None)
    assert found.warnings == ()
    assert found.input_shape == (1, 8, 8)
    assert (len(found.fitting), len(found.held_out)) == (300, 100)
    assert found.preprocessing == load_card("digits")
    images = torch.cat([found.fitting.images, found.held_out.images])
    assert abs(float(images.mean())) < 0.05
    assert abs(float(images.std()) - 1) < 0.05


def test_the_network_covers_what_pruning_has_to_handle(model: nn.Module) -> None:
    kinds = [type(module) for module in model.modules()]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert nn.BatchNorm2d in kinds
    assert any(c.groups == c.in_channels > 1 for c in convolutions), "no depthwise layer"
    assert "ResidualBlock" in {kind.__name__ for kind in kinds}


def test_the_training_script_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch: the script runs, and writes weights that the model takes."""
    output = tmp_path / "net.safetensors"
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "1", "--output", str(output)])
    monkeypatch.syspath_prepend(str(DIGITS))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    runpy.run_path(str(DIGITS / "train.py"), run_name="__main__")
    torch.set_num_threads(1)
    monkeypatch.delitem(sys.modules, "model", raising=False)
    loaded = load_model(output, architecture=f"{DIGITS / 'model.py'}:digits_net", input_shape=(1, 8, 8))
    assert right(loaded.module.eval(), whole("test")) > 0.3 * 397
