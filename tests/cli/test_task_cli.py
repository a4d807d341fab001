"""``--task`` and ``--metric`` as a user gives them, on a tiny detector, segmenter and classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from image_files import save_as
from onnx_models import written
from PIL import Image
from small_project import sentence

NETWORKS = '''
import torch
from PIL import Image
from torch import nn


class Detector(nn.Module):
    """One anchor for every 4 x 4 pixels: centre, size and two class scores."""

    def __init__(self, width=16):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1, stride=4)
        self.head = nn.Conv2d(width, 6, 1)
        rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
        self.register_buffer("centres", torch.stack([columns, rows]) * 4 + 2)

    def forward(self, x):
        y = self.head(torch.relu(self.second(torch.relu(self.first(x)))))
        boxes = [self.centres + y[:, :2], 4 + 2 * torch.sigmoid(y[:, 2:4])]
        return torch.cat([*boxes, torch.sigmoid(y[:, 4:])], 1).flatten(2)


class Segmenter(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


class Classifier(Segmenter):
    def forward(self, x):
        return super().forward(x).mean((2, 3))


def detector(): return Detector()
def segmenter(): return Segmenter()
def classifier(): return Classifier()
'''
METRICS = """
import numpy as np
import onnx


def closeness(outputs, images, labels):
    assert labels is None and images.shape[1:] == (1, 24, 24)
    return 1 / (1 + np.abs(outputs[0]).reshape(len(images), -1).mean(axis=1))


def large(outputs, images, labels):
    return 37.2


def fails(outputs, images, labels):
    raise ValueError("no ground truth")


def nothing(outputs, images, labels):
    return float("nan")
"""
NAMES = ("detector", "segmenter", "classifier")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks as state dicts and ONNX files, and images with squares in them."""
    place = tmp_path_factory.mktemp("tasks")
    (place / "nets.py").write_text(NETWORKS)
    (place / "metrics.py").write_text(METRICS)
    generator = np.random.default_rng(0)
    images = generator.normal(0, 0.1, (64, 1, 24, 24)).astype(np.float32)
    for image in images:
        row, column = generator.integers(0, 16, 2)
        image[0, row : row + 8, column : column + 8] += 1.0
    namespace: dict[str, Any] = {}
    exec(compile(NETWORKS, "nets.py", "exec"), namespace)
    torch.manual_seed(0)
    for name in NAMES:
        network = namespace[name]().eval()
        if name == "detector":
            with torch.no_grad():
                network.head.weight[4:] *= 4
                network.head.bias[4:] -= 0.5
        if name == "segmenter":  # so that every class occurs
            with torch.no_grad():
                network.head.bias -= network(torch.from_numpy(images)).mean((0, 2, 3))
        torch.save(network.state_dict(), place / f"{name}.pt")
        written(network, place / f"{name}.onnx", (1, 24, 24))
    np.savez(place / "images.npz", images=images)
    np.savez(place / "labelled.npz", images=images, labels=generator.integers(0, 3, len(images)))
    return place


def compress(name: str, data: str = "images.npz") -> tuple[str, ...]:
    return (
        "compress", f"{name}.pt", "--arch", "nets.py:" + name, "--calibration", data, "--effort", "quick",
        "--threads", "1", "--held-out", "0.5",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "task", "kind", "words"),
    [
        pytest.param(
            "detector",
            "detection",
            "AP against the original's own detections",
            "centre and size",
            marks=pytest.mark.wide,
        ),
        ("segmenter", "segmentation", "mean IoU against the original's own segmentation", "of 3 classes"),
        pytest.param(
            "classifier",
            "embedding",
            "nearest neighbours shared with the original",
            "3 numbers an image",
            marks=pytest.mark.wide,
        ),
        pytest.param(
            "segmenter",
            "regression",
            "mean absolute error against the original, worst output channel",
            "3 output",
            marks=pytest.mark.wide,
        ),
    ],
)
def test_a_report_is_in_the_unit_of_the_task(
    edgeprune: Any, folder: Path, tmp_path: Path, name: str, task: str, kind: str, words: str
) -> None:
    output = tmp_path / "out"
    done = edgeprune(
        # Of regression, numbers beside the images are values to predict; classes do not fit its outputs.
        *compress(name, "images.npz" if task == "regression" else "labelled.npz"),
        "--task",
        task,
        "--ratio",
        "0.2",
        "-o",
        str(output),
        "--json",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accuracy_kind"] == kind
    original, delivered = report["accuracy"][0], report["accuracy"][-1]
    assert original["value"] == (0.0 if task == "regression" else 1.0)
    assert delivered["low"] <= delivered["value"] <= delivered["high"]
    assert report["usability"]["loss"] is not None
    assert any(words in note for note in report["notes"])
    told = any(f"which --task {task} does not use" in note for note in report["notes"])
    assert told == (task != "regression")
    assert any(note.startswith(f"besides {kind}, of what is delivered: ") for note in report["notes"])
    assert kind in (output / "report.md").read_text()


@pytest.mark.wide
def test_the_limit_of_a_search_is_in_points_of_the_task(edgeprune: Any, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = edgeprune(
        *compress("segmenter"),
        "--task",
        "segmentation",
        "--max-drop",
        "20",
        "-o",
        str(output),
        "--json",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["budget"]["drop_of"] == "mean IoU against the original's own segmentation"
    chosen = next(c for c in report["budget"]["candidates"] if c["name"] == report["budget"]["chosen"])
    assert chosen["drop_points"] <= 20
    assert chosen["drop_points"] == pytest.approx(100 * (1 - report["accuracy"][-1]["value"]), abs=0.5)
    picked = edgeprune("pick", str(output), "--max-drop", "100", "--json", cwd=folder)
    assert picked.returncode == 0, picked.stderr
    # Of a network without a loss no points are told.
    headline = json.loads(picked.stdout)["usability"]["headline"]
    assert "mean IoU against the original's own segmentation" in headline


@pytest.mark.parametrize("precision", ["int8", pytest.param("auto", marks=pytest.mark.wide)])
def test_a_quantized_detector_is_judged_by_its_boxes(
    edgeprune: Any, folder: Path, tmp_path: Path, precision: str
) -> None:
    asked = (
        "quantize", "detector.onnx", "--calibration", "images.npz", "--held-out", "0.5", "--task",
        "detection", "--precision", precision, "--threads", "1",
    )  # fmt: skip
    done = edgeprune(*asked, "--max-drop", "100", "-o", str(tmp_path / "q.onnx"), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["accuracy_kind"] == "AP against the original's own detections"
    before, after = result["accuracy"]
    assert (before["value"], before["low"]) == (1.0, 1.0)
    assert 0.0 < after["value"] <= 1.0
    assert any("F1 at confidence 0.25" in note for note in result["notes"])


def test_too_much_lost_of_the_task_is_refused(edgeprune: Any, folder: Path, tmp_path: Path) -> None:
    done = edgeprune(
        "quantize", "classifier.onnx", "--calibration", "images.npz", "--task", "embedding", "--max-drop",
        "0", "--threads", "1", "-o", str(tmp_path / "q.onnx"), cwd=folder,
    )  # fmt: skip
    assert "points of nearest neighbours shared with the original" in sentence(done, 12)
    assert not (tmp_path / "q.onnx").exists()


def test_a_metric_of_ones_own(edgeprune: Any, folder: Path, tmp_path: Path) -> None:
    asked = (*compress("segmenter"), "--metric", "metrics.py:closeness", "--ratio", "0.2")
    done = edgeprune(*asked, "-o", str(tmp_path / "out"), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accuracy_kind"] == "the given metric"
    assert "of the given metric" in report["usability"]["headline"]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "classifier",
            ("--task", "detection"),
            "the network's outputs are (n, 3); accepted there is one tensor",
        ),
        ("segmenter", ("--task", "classification"), "accepted there is one output of class scores"),
        ("classifier", ("--task", "segmentation"), "accepted there are scores for every pixel"),
        ("segmenter", ("--max-drop", "1"), "or a --task that says what they are"),
        ("segmenter", ("--task", "regression", "--max-drop", "1"), "no percentage points to lose"),
        ("segmenter", ("--metric", "metrics.py:large", "--max-drop", "1"), "a metric that is 37.2 for the"),
        ("segmenter", ("--metric", "metrics.py:fails"), "raised ValueError (no ground truth)"),
        ("segmenter", ("--metric", "metrics.py:nothing"), "returned nan for 32 images"),
        ("segmenter", ("--metric", "metrics.py:missing"), "names 'missing', which is no function"),
        ("segmenter", ("--metric", "metrics.py:large", "--task", "detection"), "accepted is one way of"),
        ("detector", ("--boxes", "xywh"), "without --task detection"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    edgeprune: Any, folder: Path, tmp_path: Path, name: str, options: tuple[str, ...], said: str
) -> None:
    done = edgeprune(*compress(name), *options, "-o", str(tmp_path / "out"), cwd=folder)
    assert said in sentence(done, 2)
    assert "rank" not in done.stderr.split("] ")[-1].split()
    assert not (tmp_path / "out").exists()
    quantized = edgeprune(
        "quantize", f"{name}.onnx", "--calibration", "images.npz", "--held-out", "0.5", *options, "--threads",
        "1", "-o", str(tmp_path / "q.onnx"), cwd=folder,
    )  # fmt: skip
    assert said.replace("or a --task that says what they are", "say with --task what") in sentence(
        quantized, 2
    )
    assert not (tmp_path / "q.onnx").exists()


def test_a_task_that_does_not_exist_is_told_with_those_that_do(edgeprune: Any, folder: Path) -> None:
    done = edgeprune(*compress("detector"), "--task", "pose", cwd=folder)
    assert done.returncode == 2
    assert "'detection', 'segmentation'" in done.stderr


def seeing(network: Any) -> None:
    """Weights by hand: bright squares of 6 pixels around every fourth pixel are found; the rest is noise."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.05)
        network.first.weight[0], network.first.bias[0] = 0.0, 0.0
        network.first.weight[0, 0, 1, 1] = 1.0
        network.second.weight[0], network.second.bias[0] = 0.0, 0.0
        network.second.weight[0, 0] = 1 / 9
        network.head.weight[:4] *= 0.1
        network.head.weight[4:, 0] = torch.tensor([12.0, 0.0])[:, None, None]
        network.head.bias.copy_(torch.tensor([-2.0, -2.0, 6.0, 6.0, -8.0, -8.0]))


@pytest.fixture(scope="module")
def labelled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that sees squares, and pictures of squares with their boxes as COCO and as YOLO files."""
    place = tmp_path_factory.mktemp("boxes")
    (place / "nets.py").write_text(NETWORKS)
    namespace: dict[str, Any] = {}
    exec(compile(NETWORKS, "nets.py", "exec"), namespace)
    torch.manual_seed(0)
    network = namespace["detector"]().eval()
    seeing(network)
    torch.save(network.state_dict(), place / "detector.pt")
    (place / "images").mkdir()
    (place / "yolo").mkdir()
    rng, entries, boxes = np.random.default_rng(0), [], []
    for number in range(64):
        pixels = rng.integers(0, 20, (24, 24)).astype(np.uint8)
        column, row = (4 * rng.integers(1, 5, 2)).tolist()
        pixels[row - 3 : row + 3, column - 3 : column + 3] = 250
        Image.fromarray(pixels).save(place / "images" / f"{number:02}.png")
        entries.append({"id": number, "file_name": f"{number:02}.png", "width": 24, "height": 24})
        corner = [column - 3, row - 3, 6, 6]
        box = {"id": number, "image_id": number, "category_id": 1, "bbox": corner}
        boxes.append({**box, "area": 36, "iscrowd": 0})
        text = f"0 {column / 24} {row / 24} 0.25 0.25\n"
        (place / "yolo" / f"{number:02}.txt").write_text(text)
    document = {"images": entries, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
    (place / "boxes.json").write_text(json.dumps(document))
    return place


@pytest.mark.parametrize("labels", ["boxes.json", pytest.param("yolo", marks=pytest.mark.wide)])
def test_boxes_of_a_file_are_what_a_detector_is_judged_by(
    edgeprune: Any, labelled: Path, tmp_path: Path, labels: str
) -> None:
    output = tmp_path / "out"
    done = edgeprune(
        *compress("detector", "images"), "--task", "detection", "--labels", labels,
        "--mean", "0", "--std", "1", "--ratio", "0.3", "-o", str(output), "--json",
        cwd=labelled,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accuracy_kind"] == "AP (IoU .5 to .95)"
    original, delivered = report["accuracy"][0], report["accuracy"][-1]
    assert original["value"] > 0.95
    assert delivered["value"] > 0.9
    assert report["pruning"]["macs_removed_share"] >= 0.3


def test_a_segmenter_that_finds_one_class_is_not_judged(edgeprune: Any, folder: Path, tmp_path: Path) -> None:
    class Silent(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.layer(x) * 0.01 - 9)

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    written(Silent().eval(), tmp_path / "silent.onnx", (1, 24, 24))
    asked = (
        "quantize", str(tmp_path / "silent.onnx"), "--calibration", "images.npz", "--task", "segmentation",
        "--threads", "1", "-o", str(tmp_path / "q.onnx"),
    )  # fmt: skip
    told = "the original's own segmentation has no class other than 0 in the held-out images"
    assert f"--max-drop was given, and {told}" in sentence(
        edgeprune(*asked, "--max-drop", "1", cwd=folder), 4
    )
    assert not (tmp_path / "q.onnx").exists()
    done = edgeprune(*asked, "--json", cwd=folder)
    assert json.loads(done.stdout)["cannot_be_judged"].startswith(told), done.stderr


@pytest.fixture
def of_open_size(folder: Path, tmp_path: Path) -> Path:
    """The classifier as a file for images of any size, and images of another size than it is run at."""
    proto = onnx.load(str(folder / "classifier.onnx"))
    for place, symbol in ((2, "height"), (3, "width")):
        proto.graph.input[0].type.tensor_type.shape.dim[place].dim_param = symbol
    del proto.graph.value_info[:]
    onnx.save(proto, str(tmp_path / "open.onnx"))
    generator = np.random.default_rng(0)
    for place in range(24):
        pixels = generator.integers(0, 256, (30, 40), dtype=np.uint8)
        save_as(tmp_path / "images" / f"{place}.png", pixels)
    return tmp_path


def test_a_size_that_the_file_leaves_open_is_that_of_the_preprocessed_images(
    edgeprune: Any, of_open_size: Path
) -> None:
    asked = (
        "compress", "open.onnx", "--calibration", "images", "--effort", "quick", "--threads", "1",
        "--held-out", "0.5", "--ratio", "0.2",
    )  # fmt: skip
    done = edgeprune(*asked, "--resize", "12x20", "-o", "out", "--json", cwd=of_open_size)
    assert done.returncode == 0, done.stderr
    notes = json.loads(done.stdout)["notes"]
    assert any("that of the calibration images, 1x12x20, was taken" in note for note in notes)
    dims = onnx.load(str(of_open_size / "out" / "model.onnx")).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims][1:] == [1, 12, 20]
    other = edgeprune(*asked, "--resize", "12x20", "--input-shape", "1x24x24", "-o", "no", cwd=of_open_size)
    assert "--resize 24 --crop 24, or --input-shape 1x12x20 if the model takes" in sentence(other, 4)
