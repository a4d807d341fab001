"""``edgeprune compress --recipe``: the user's own training function, as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_project import networks, sentence

from edgeprune import apply_surgery

COMPRESS = (
    "compress", "small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", "--threads", "1",
    "--target", "rpi4", "--width-quantum", "1",
)  # fmt: skip

RECIPES = """
from pathlib import Path

import torch
from torch import nn


def train(network):
    assert not network.training and network.__class__.__name__ == "Small"
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(4, 1, 8, 8)).square().sum().backward()
        optimizer.step()
    torch.save(network.state_dict(), Path(__file__).with_name("trained.pt"))


def another(network):
    return nn.Conv2d(1, 4, 3)


def wider(network):
    network.head = nn.Linear(network.head.in_features, 5)
    return network


def other_layers(network):
    network.head = nn.Sequential()
    return network


def steeper(network):
    network.forward = lambda x, inner=network.forward: 2 * inner(x)


def explode(network):
    network.head.weight.data[0, 0] = float("nan")


def number(network):
    return 7


def fails(network):
    raise RuntimeError("no data loader")
"""


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    path = tmp_path / "finetune.py"
    path.write_text(RECIPES)
    return path


def test_the_function_trains_the_users_class_and_the_weights_are_delivered(
    edgeprune: Any, project: Path, tmp_path: Path, recipes: Path
) -> None:
    reports = []
    for folder in ("one", "two"):
        done = edgeprune(
            *COMPRESS,
            "--ratio",
            "0.4",
            "--recipe",
            f"{recipes}:train",
            "--json",
            "-o",
            str(tmp_path / folder),
        )
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
    stages = [figure["stage"] for figure in reports[0]["accuracy"]]
    assert stages == ["original", "pruned", "recovered", "fine-tuned", "ONNX"]
    assert reports[0]["recovery"]["recipe"] == f"{recipes}:train"
    first, again = (load_file(tmp_path / f / "weights.safetensors") for f in ("one", "two"))
    assert all((first[name] == again[name]).all() for name in first)
    trained = torch.load(recipes.with_name("trained.pt"))
    assert all((first[name] == trained[name]).all() for name in trained if "num_batches" not in name)
    replayed = apply_surgery(
        networks(project).small().eval(),
        tmp_path / "one" / "surgery.json",
        tmp_path / "one" / "weights.safetensors",
    )
    assert (replayed.head.weight == first["head.weight"]).all()


@pytest.mark.wide
def test_a_search_trains_every_candidate(edgeprune: Any, tmp_path: Path, recipes: Path) -> None:
    done = edgeprune(
        *COMPRESS, "--max-size", "4kB", "--recipe", f"{recipes}:train", "--json", "-o", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["budget"]["candidates"][0]["size_bytes"] <= 4000
    assert "fine-tuned" in [figure["stage"] for figure in report["accuracy"]]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        pytest.param("another", "returned another network", marks=pytest.mark.wide),
        pytest.param("wider", "returned a network whose head.weight is (5, ", marks=pytest.mark.wide),
        pytest.param("other_layers", "computes something else than the pruned graph", marks=pytest.mark.wide),
        ("steeper", "computes something else than the pruned graph"),
        ("explode", "left NaN or infinite values in head.weight"),
        pytest.param("number", "returned a value of type int", marks=pytest.mark.wide),
        pytest.param("fails", "raised RuntimeError (no data loader)", marks=pytest.mark.wide),
        ("missing", "which is no function of that module"),
    ],
)
def test_what_cannot_be_delivered_is_one_sentence(
    edgeprune: Any, tmp_path: Path, recipes: Path, function: str, said: str
) -> None:
    asked = (*COMPRESS, "--ratio", "0.4", "--recipe", f"{recipes}:{function}", "-o", str(tmp_path / "out"))
    assert said in sentence(edgeprune(*asked), 2)
    assert not (tmp_path / "out").exists()


def test_two_ways_of_training_are_refused(edgeprune: Any, tmp_path: Path, recipes: Path) -> None:
    asked = (*COMPRESS, "--finetune", "5", "--recipe", f"{recipes}:train", "-o", str(tmp_path / "out"))
    assert "--recipe and --finetune were both given" in sentence(edgeprune(*asked), 2)
