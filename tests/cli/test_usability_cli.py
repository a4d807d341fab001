"""The first line of every form of the result says whether the delivered network is any good."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

NETS = """
from torch import nn


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def mapping():
    return nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 3, padding=1))
"""
DATA = ("--calibration", "noise.npz", "--mean", "0.5", "--std", "0.29", "--width-quantum", "1")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of random weights on images of noise, whose answers need every one of their live channels.

    Half of the perceptron's hidden units are dead. ``far.pt`` has an output so far from the others that 8
    bits cannot tell those apart.
    """
    folder = tmp_path_factory.mktemp("noise")
    (folder / "nets.py").write_text(NETS)
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    with torch.no_grad():
        network[1].bias.zero_()
        network[3].bias.zero_()
        network[3].weight[:, 16:] = 0
        torch.save(network.state_dict(), folder / "net.pt")
        right = network(torch.from_numpy((images / 255 - 0.5) / 0.29).float()).argmax(1).numpy()
        network[3].bias[9] = -300
        torch.save(network.state_dict(), folder / "far.pt")
    maps = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 3, padding=1))
    torch.save(maps.state_dict(), folder / "maps.pt")
    np.savez(folder / "noise.npz", images=images)
    np.savez(folder / "labelled.npz", images=images, labels=right)
    np.savez(folder / "mislabelled.npz", images=images, labels=(right + 1) % 10)
    return folder


def told(
    noise: Path, output: Path, done: subprocess.CompletedProcess[str]
) -> tuple[str, list[str], dict[str, Any]]:
    """The headline, the same in all three forms and the log; the terminal's lines; the report."""
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "report.json").read_text())
    assert list(report)[:2] == ["schema_version", "usability"]
    headline: str = report["usability"]["headline"]
    lines = done.stdout.splitlines()
    while len(lines[0]) < len(headline):  # a long one is wrapped
        lines[:2] = [f"{lines[0]} {lines[1]}"]
    assert lines[0] == headline
    title = (output / "report.md").read_text().splitlines()[0]
    assert title == f"# {headline[:1].upper()}{headline[1:]}"
    warned = f"warning: {headline}; what to do: " in done.stderr
    assert warned is (report["usability"]["grade"] != "usable")
    return headline, lines, report


def test_a_network_that_pruning_ruined_says_so_first(noise: Path, tmp_path: Path, edgeprune: Any) -> None:
    command = ("compress", "net.pt", "--arch", "nets.py:perceptron", *DATA, "--ratio", "0.93")
    done = edgeprune(*command, "-o", str(tmp_path / "out"), cwd=noise)
    headline, lines, report = told(noise, tmp_path / "out", done)
    usability = report["usability"]
    assert usability["grade"] == "not usable"
    lost = usability["answers"]["lost"]
    assert usability["answers"] == {"images": 100, "kept_from": 100, "lost": lost, "gained": 0}
    assert headline.startswith(f"loses {lost} of 100 answers: not usable (95% interval ")
    assert report["accuracy"][-1]["value"] == pytest.approx(1 - lost / 100)
    advice = " ".join(lines[1:3])
    assert advice.startswith("what to do: cut less (--ratio 0.47), train after recovery (--finetune 2min)")
    assert "more images than the 300" in advice
    assert "checks passed" not in done.stdout
    assert "this is not about accuracy" in done.stdout


@pytest.mark.wide
def test_the_smaller_cut_that_is_advised_keeps_the_answers(
    noise: Path, tmp_path: Path, edgeprune: Any
) -> None:
    done = edgeprune(
        "compress", "net.pt", "--arch", "nets.py:perceptron", *DATA, "--ratio", "0.47",
        "-o", str(tmp_path / "out"), cwd=noise,
    )  # fmt: skip
    headline, _, report = told(noise, tmp_path / "out", done)
    usable = "no measurable loss of answers: usable (95% interval 0 to 3.7 of 100; 100 held-out images)"
    assert headline.startswith(f"{usable}; REMOVES ")
    removed = report["pruning"]["macs_removed_share"]
    assert removed > 0.49
    assert f"REMOVES {removed:.0%} of the MACs where 47% were asked for" in report["usability"]["headline"]
    assert report["usability"]["what_to_do"] == []


@pytest.mark.wide
def test_three_images_do_not_condemn_a_network(noise: Path, tmp_path: Path, edgeprune: Any) -> None:
    done = edgeprune(
        "compress", "net.pt", "--arch", "nets.py:perceptron", *DATA, "--ratio", "0.93",
        "--max-images", "12", "-o", str(tmp_path / "out"), cwd=noise,
    )  # fmt: skip
    headline, lines, report = told(noise, tmp_path / "out", done)
    assert report["usability"]["answers"]["lost"] > 0
    assert headline.startswith("cannot be judged by 3 held-out images: loses between ")
    assert lines[1].startswith("what to do: judge by more images, about ")


def test_what_8_bits_lose_counts_for_the_delivered_file(noise: Path, tmp_path: Path, edgeprune: Any) -> None:
    done = edgeprune(
        "compress", "far.pt", "--arch", "nets.py:perceptron", *DATA, "--ratio", "0.4", "--precision", "int8",
        "-o", str(tmp_path / "out"), cwd=noise,
    )  # fmt: skip
    headline, lines, report = told(noise, tmp_path / "out", done)
    stages = {figure["stage"]: figure["value"] for figure in report["accuracy"]}
    assert stages["ONNX"] > 0.95
    assert stages["int8"] < 0.5
    assert ": not usable (" in headline
    assert "--precision int8: ship model-fp32.onnx, which lies beside it" in " ".join(lines[1:3])
    assert (tmp_path / "out" / "model-fp32.onnx").is_file()


@pytest.mark.wide
def test_labels_say_which_answers_count_and_wrong_ones_are_named(
    noise: Path, tmp_path: Path, edgeprune: Any
) -> None:
    command = ("compress", "net.pt", "--arch", "nets.py:perceptron", *DATA, "--ratio", "0.93")
    done = edgeprune(*command, "--calibration", "labelled.npz", "-o", str(tmp_path / "right"), cwd=noise)
    headline, _, report = told(noise, tmp_path / "right", done)
    assert report["usability"]["answers"]["kept_from"] == 100
    assert " of 100 answers: not usable (" in headline

    command = (*command, "--calibration", "mislabelled.npz", "--json", "-q")
    done = edgeprune(*command, "-o", str(tmp_path / "wrong"), cwd=noise)
    assert (done.returncode, done.stderr) == (0, "")
    usability = json.loads(done.stdout)["usability"]
    assert usability["grade"] == "inconclusive"
    assert "the original itself is right on only " in usability["headline"]
    assert "check the labels" in usability["what_to_do"][0]


@pytest.mark.wide
def test_outputs_without_classes_are_judged_by_their_error(
    noise: Path, tmp_path: Path, edgeprune: Any
) -> None:
    done = edgeprune(
        "compress", "maps.pt", "--arch", "nets.py:mapping", *DATA, "--ratio", "0.93",
        "-o", str(tmp_path / "out"), cwd=noise,
    )  # fmt: skip
    headline, _, report = told(noise, tmp_path / "out", done)
    usability, delivered = report["usability"], report["accuracy"][-1]
    assert usability["answers"] is None
    assert (usability["loss"], usability["low"]) == (delivered["value"], delivered["low"])
    assert headline.startswith("relative squared error of ")
    assert usability["grade"] in {"degraded", "not usable"}
