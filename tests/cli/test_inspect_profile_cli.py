"""``edgeprune inspect`` and ``edgeprune profile`` on what a user has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from small_project import DIGITS_DATA, DIGITS_MODEL, sentence


def test_inspect_digits(edgeprune: Any) -> None:
    done = edgeprune("inspect", *DIGITS_MODEL, "--calibration", DIGITS_DATA)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "input 1x8x8",
        "61,546 parameters",
        "224 prunable channels",
        "depthwise.0",
        "output of the model",
    ):
        assert text in " ".join(done.stdout.split())


def test_inspect_as_json_agrees(edgeprune: Any) -> None:
    done = edgeprune("inspect", *DIGITS_MODEL, "--input-shape", "1x8x8", "--json", "-q")
    found = json.loads(done.stdout)
    assert found["players"] == sum(group["channels"] for group in found["groups"]) == 224
    assert found["macs"] == sum(layer["macs_before"] for layer in found["layers"])


def test_inspect_without_a_shape_asks_for_it(edgeprune: Any) -> None:
    assert "--input-shape" in sentence(edgeprune("inspect", *DIGITS_MODEL), 2)


def test_inspect_a_torchvision_network_without_weights(edgeprune: Any) -> None:
    done = edgeprune("inspect", "torchvision:resnet18", "--weights", "none", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Published figures of torchvision's ResNet-18: 11,689,512 parameters, 1.814 G MACs.
    assert found["parameters"] == 11_689_512
    assert round(found["macs"] / 1e9, 3) == 1.814
    assert any("weights are random" in note for note in found["notes"])


@pytest.mark.parametrize(("model", "note"), [("dynamic.pt2", None), ("fixed.pt2", "fixed batch of 1")])
def test_inspect_exported_programs(model: str, note: str | None, edgeprune: Any) -> None:
    done = edgeprune("inspect", model, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["input_shape"] == [1, 8, 8]
    assert found["players"] == 16
    assert [n for n in found["notes"] if note is None or note not in n] == []
    assert len(found["notes"]) == (note is not None)


def test_inspect_the_output_of_compress(digits: Any, edgeprune: Any) -> None:
    folder, done = digits
    found = json.loads(edgeprune("inspect", str(folder / "model.pt2"), "--json").stdout)
    report = json.loads(done.stdout)
    after = {row["layer"]: row["channels_after"] for row in report["pruning"]["layers"]}
    assert sorted(row["channels_before"] for row in found["layers"]) == sorted(after.values())
    assert found["macs"] == sum(row["macs_after"] for row in report["pruning"]["layers"])


def test_inspect_draws_the_groups(tmp_path: Path, edgeprune: Any) -> None:
    drawn, page = tmp_path / "net.svg", tmp_path / "net.html"
    done = edgeprune("inspect", *DIGITS_MODEL, "--input-shape", "1x8x8", "--graph", str(drawn))
    assert (done.returncode, done.stderr) == (0, "")
    assert str(drawn) in "".join(done.stdout.split())
    assert "depthwise.0" in drawn.read_text(encoding="utf-8")
    done = edgeprune("inspect", *DIGITS_MODEL, "--input-shape", "1x8x8", "--graph", str(page), "--json")
    assert json.loads(done.stdout)["graph"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["net.html", "net.svg"]


def test_inspect_replaces_its_own_drawing_only_with_overwrite(tmp_path: Path, edgeprune: Any) -> None:
    drawn = tmp_path / "net.svg"
    command = ("inspect", "dynamic.pt2", "--graph", str(drawn), "-q")
    assert edgeprune(*command).returncode == 0
    before = drawn.read_bytes()
    drawn.write_bytes(before + b"<!-- mine -->")
    assert "--overwrite" in sentence(edgeprune(*command), 7)
    assert edgeprune(*command, "--overwrite").returncode == 0
    assert drawn.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (("--graph", "net.png"), 2, ("'net.png'", "'.png'", ".svg", ".html")),
        (("--graph", "nowhere/net.svg"), 7, ("'nowhere/net.svg'", "is no folder")),
        (("--overwrite",), 2, ("--graph",)),
    ],
)
def test_a_drawing_is_refused_before_the_model_is_loaded(
    arguments: tuple[str, ...], status: int, parts: tuple[str, ...], edgeprune: Any
) -> None:
    said = sentence(edgeprune("inspect", "no such model.pt", *arguments), status)
    for part in parts:
        assert part in said


def test_profile_here(digits: Any, tmp_path: Path, edgeprune: Any) -> None:
    model = digits[0] / "model.onnx"
    page = tmp_path / "page.html"
    done = edgeprune("profile", str(model), "--threads", "1", "--html", str(page), fork=False)
    assert (done.returncode, done.stderr) == (0, f"written to {page}\n")
    assert "Latency by operator" in page.read_text()
    assert "measured on this host" in done.stdout
    assert "predicted" not in done.stdout


def test_profile_for_a_target_beside_a_baseline(digits: Any, tmp_path: Path, edgeprune: Any) -> None:
    model = digits[0] / "model.onnx"
    other = tmp_path / "other.onnx"
    onnx.save(onnx.load(model), other)
    done = edgeprune(
        "profile", str(model), "--target", "rpi4", "--baseline", str(other), "--threads", "1", "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["figures"]["size_bytes"] == model.stat().st_size
    assert found["figures"]["latency"]["provenance"] == "measured on this host"
    assert found["prediction"]["provenance"] == "predicted"
    assert found["prediction"]["latency_ms"] == found["baseline_prediction"]["latency_ms"] > 0
    ratio = found["latency_ratio"]
    assert ratio["low"] <= ratio["ratio"] <= ratio["high"]
    assert ratio["pairs"] > 0


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (("profile", "none.onnx"), 10, ("no ONNX file at 'none.onnx'", "give the path of an .onnx file")),
        (("profile", "text.pt"), 10, ("text.pt", "no valid ONNX file", "give one that onnx can load")),
        (("profile", "text.pt", "--target", "rp4"), 9, ("'rp4'", "did you mean 'rpi4'")),
    ],
)
def test_what_cannot_be_profiled(
    arguments: tuple[str, ...], status: int, parts: tuple[str, ...], edgeprune: Any
) -> None:
    said = sentence(edgeprune(*arguments), status)
    for part in parts:
        assert part in said


TWO_INPUTS = """
import torch
from torch import nn


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.numbers, self.head = nn.Conv2d(3, 8, 3), nn.Linear(5, 6), nn.Linear(14, 2)

    def forward(self, x, n):
        return self.head(torch.cat([self.image(x).relu().mean((2, 3)), self.numbers(n).relu()], 1))


def both():
    return Both()
"""


def test_inspect_a_model_with_several_inputs(edgeprune: Any, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO_INPUTS)
    namespace: dict[str, Any] = {}
    exec(TWO_INPUTS, namespace)
    torch.save(namespace["both"]().state_dict(), tmp_path / "two.pt")
    model = (str(tmp_path / "two.pt"), "--arch", f"{tmp_path / 'two.py'}:both")
    done = edgeprune("inspect", *model, "--input-shape", "3x8x8", "--input-shape", "5", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["input_shape"], found["players"]) == ([[3, 8, 8], [5]], 14)
    refused = sentence(edgeprune("inspect", *model, "--input-shape", "3x8x8", "--input-shape", "5x?"), 2)
    assert "'5x?'" in refused


ATTENTION = """
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12)
        self.attention, self.head = nn.MultiheadAttention(12, 3, batch_first=True), nn.Linear(12, 2)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        y = self.norm(x)
        return self.head((x + self.attention(y, y, y, need_weights=False)[0]).mean(1))


def small():
    return Small()
"""


def test_inspect_tells_what_the_choices_change(edgeprune: Any, tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(ATTENTION)
    namespace: dict[str, Any] = {}
    exec(ATTENTION, namespace)
    torch.save(namespace["small"]().state_dict(), tmp_path / "small.pt")

    def players(*choices: str) -> int:
        model = (str(tmp_path / "small.pt"), "--arch", f"{tmp_path / 'small.py'}:small")
        done = edgeprune("inspect", *model, "--input-shape", "3x8x8", "--json", *choices)
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["players"])

    # 4 channels in each of 3 heads, a stream of 12.
    assert players() == 4
    assert players("--attention-unit", "heads", "--prune-normalized") == 3 + 12


def test_a_bundle_is_packed_and_a_result_that_is_none_is_refused(
    digits: Any, edgeprune: Any, tmp_path: Path
) -> None:
    bundle, result = tmp_path / "bench.tar.gz", tmp_path / "result.json"
    command = ("bundle", str(digits[0]), "-o", str(bundle), "--threads", "1", "--json")
    done = edgeprune(*command)
    assert done.returncode == 0, done.stderr
    assert "model" in json.loads(done.stdout)["models"]
    assert bundle.stat().st_size > 0
    sentence(edgeprune(*command), 7)
    result.write_text("{")
    said = sentence(edgeprune("profile", str(digits[0] / "model.onnx"), "--result", str(result)), 2)
    assert "no whole JSON" in said
