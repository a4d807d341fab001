"""Labels of detection, segmentation and regression reach the images that they are of, and the measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from edgeprune.artifacts.calibration import CalibrationSet, ImageBatch, Preprocessing
from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.truth import NOWHERE
from edgeprune.calibration import load_calibration
from edgeprune.calibration.annotations.maps import placed_map
from edgeprune.calibration.geometry import place
from edgeprune.errors import CalibrationError
from edgeprune.evaluation.average_precision import average_precisions, match_classes
from edgeprune.evaluation.base import Boxes
from edgeprune.evaluation.registry import for_task, measure_for
from edgeprune.options.subjects import TaskOptions

COUNT, SIDE = 12, 40
"""Image i is grey of value 10 + i, and its labels tell i, too."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = tmp_path_factory.mktemp("task-labels") / "images"
    images.mkdir()
    for i in range(COUNT):
        Image.new("L", (SIDE, SIDE), 10 + i).save(images / f"p{i:02d}.png")
    return images


def coco(folder: Path, path: Path, **changes: Any) -> Path:
    document = {
        "images": [
            {"id": i, "file_name": f"p{i:02d}.png", "height": SIDE, "width": SIDE} for i in range(COUNT)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": (3, 8)[i % 2], "bbox": [i, 2, 10, 20]}
            for i in range(COUNT)
        ],
    }
    path.write_text(json.dumps(document | changes))
    return path


def numbers(batch: ImageBatch) -> list[int]:
    """Which image each of a batch is, by its grey."""
    return [round(float(image.mean()) * 255) - 10 for image in batch.images]


def both(calibration: CalibrationSet) -> list[ImageBatch]:
    return [calibration.fitting, calibration.held_out]


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_boxes_are_of_their_images_and_in_pixels_of_the_input(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "coco":
        labels = coco(folder, tmp_path / "boxes.json")
    else:
        labels = tmp_path / "texts"
        labels.mkdir()
        (labels / "classes.txt").write_text("cat\ndog\n")
        for i in range(COUNT):
            line = f"{i % 2} {(i + 5) / SIDE} {12 / SIDE} {10 / SIDE} {20 / SIDE}\n"
            (labels / f"p{i:02d}.txt").write_text(line)
    options = Preprocessing(letterbox=(80, 120))
    calibration = load_calibration(folder, labels=labels, preprocessing=options, task=Task.DETECTION)
    assert calibration.class_names == ("cat", "dog")
    for batch in both(calibration):
        assert batch.truth is not None
        assert batch.truth.boxes is not None
        inside = batch.images[:, :, :, 20:100]
        which = [round(float(image.mean()) * 255) - 10 for image in inside]
        for i, image in zip(which, batch.truth.boxes, strict=True):
            (box,) = image.boxes
            assert box.class_index == i % 2
            assert box.corners == pytest.approx((2 * i + 20, 4, 2 * i + 40, 44))


def test_maps_and_values_are_of_their_images(folder: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    for i in range(COUNT):
        Image.new("L", (SIDE, SIDE), i).save(maps / f"p{i:02d}.png")
    calibration = load_calibration(folder, labels=maps, task=Task.SEGMENTATION)
    for batch in both(calibration):
        assert batch.truth is not None
        assert batch.truth.maps is not None
        assert batch.truth.maps.shape == (len(batch), SIDE, SIDE)
        assert batch.truth.maps[:, 3, 7].tolist() == numbers(batch)
        assert batch.first(2).truth is not None
    values = tmp_path / "values.csv"
    lines = [f"p{i:02d}.png,{i},{-i / 2}" for i in reversed(range(COUNT))]
    values.write_text("\n".join(["file,x,y", *lines]))
    calibration = load_calibration(folder, labels=values, task=Task.REGRESSION)
    for batch in both(calibration):
        assert batch.truth is not None
        assert batch.truth.values is not None
        assert batch.truth.values.tolist() == [[i, -i / 2] for i in numbers(batch)]


def test_arrays_and_datasets_have_labels_of_the_task_too(tmp_path: Path) -> None:
    images = np.stack([np.full((8, 8), 10 + i, np.uint8) for i in range(COUNT)])
    maps = np.stack([np.full((8, 8), i, np.uint8) for i in range(COUNT)])
    np.savez(tmp_path / "maps.npz", images=images, labels=maps)
    np.savez(tmp_path / "values.npz", images=images, labels=np.arange(COUNT) / 4)
    by_map = load_calibration(tmp_path / "maps.npz", task=Task.SEGMENTATION)
    by_value = load_calibration(tmp_path / "values.npz", task=Task.REGRESSION)
    boxes = {"boxes": [[1.0, 2.0, 3.0, 4.0]], "labels": [1]}
    items = {
        Task.SEGMENTATION: [(image, torch.from_numpy(m)) for image, m in zip(images, maps, strict=True)],
        Task.REGRESSION: [(image, i / 4) for i, image in enumerate(images)],
        Task.DETECTION: [(image, {**boxes, "iscrowd": [i % 2]}) for i, image in enumerate(images)],
    }
    for calibration in (by_map, load_calibration(items[Task.SEGMENTATION], task=Task.SEGMENTATION)):
        for batch in both(calibration):
            assert batch.truth is not None
            assert batch.truth.maps is not None
            assert batch.truth.maps[:, 0, 0].tolist() == numbers(batch)
    for calibration in (by_value, load_calibration(items[Task.REGRESSION], task=Task.REGRESSION)):
        for batch in both(calibration):
            assert batch.truth is not None
            assert batch.truth.values is not None
            assert (4 * batch.truth.values[:, 0]).tolist() == numbers(batch)
    for batch in both(load_calibration(items[Task.DETECTION], task=Task.DETECTION)):
        assert batch.truth is not None
        assert batch.truth.boxes is not None
        crowds = [image.boxes[0].ignore for image in batch.truth.boxes]
        assert crowds == [i % 2 == 1 for i in numbers(batch)]


def test_other_labels_make_other_data(folder: Path, tmp_path: Path) -> None:
    first = coco(folder, tmp_path / "first.json")
    second = coco(folder, tmp_path / "second.json", annotations=[])
    prints = {
        load_calibration(folder, labels=labels, task=Task.DETECTION).fingerprint_sha256
        for labels in (first, second)
    }
    assert len({*prints, load_calibration(folder).fingerprint_sha256}) == 3


@pytest.mark.parametrize("beside", [False, True])
def test_values_of_a_folder_are_found_by_themselves(beside: bool, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(8):
        Image.fromarray(np.full((6, 6, 3), 20 * index, np.uint8)).save(folder / f"p{index:02}.png")
    place = (tmp_path if beside else folder) / "labels.csv"
    lines = [f"images/p{i:02}.png,{i}" if beside else f"p{i:02}.png,{i}" for i in range(8)]
    place.write_text("\n".join(["file,label", *lines]))
    calibration = load_calibration(folder, task=Task.REGRESSION)
    assert calibration.fitting.labels is None  # not classes, though a number each
    both = (calibration.fitting, calibration.held_out)
    values = [float(v) for part in both for v in part.truth.values.flatten()]  # type: ignore[union-attr]
    assert sorted(values) == list(range(8))
    assert load_calibration(folder).fitting.labels is not None
    place.write_text("file,label\nothers.png,1\n")
    if beside:
        assert load_calibration(folder, task=Task.REGRESSION).fitting.truth is None
    else:
        with pytest.raises(CalibrationError, match="8 of 8 images have no values"):
            load_calibration(folder, task=Task.REGRESSION)


@pytest.mark.parametrize(
    ("task", "content", "words"),
    [
        (Task.DETECTION, "file,label\np00.png,1", "accepted are a COCO file"),
        (Task.SEGMENTATION, "file,label\np00.png,1", "accepted is a folder"),
        (Task.REGRESSION, "name,x\np00.png,1", "accepted is file,NAME"),
        (Task.REGRESSION, "file,x\np00.png,1", "11 of 12 images have no values"),
        (Task.REGRESSION, "file,x\np00.png,nan", "accepted are a file and 1 finite numbers"),
        (Task.REGRESSION, "file,x\np00.png,1\np00.png,2", "again with other values in line 3"),
        (Task.REGRESSION, "file,x\np00.png,1,2", "in line 2"),
    ],
)
def test_labels_of_another_kind_are_refused(
    folder: Path, tmp_path: Path, task: Task, content: str, words: str
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(content)
    with pytest.raises(CalibrationError, match=words):
        load_calibration(folder, labels=labels, task=task)


def test_maps_that_lack_or_are_in_colour_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="12 of 12 images have no map"):
        load_calibration(folder, labels=tmp_path, task=Task.SEGMENTATION)
    for i in range(COUNT):
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / f"p{i:02d}.png")
    with pytest.raises(CalibrationError, match="is stored as RGB"):
        load_calibration(folder, labels=tmp_path, task=Task.SEGMENTATION)
    for i in range(COUNT):
        Image.new("L", (SIDE, SIDE + 1)).save(tmp_path / f"p{i:02d}.png")
    with pytest.raises(CalibrationError, match="are of 41x40 pixels, and the image has 40x40"):
        load_calibration(folder, labels=tmp_path, task=Task.SEGMENTATION)


def grid(height: int, width: int) -> Tensor:
    return torch.arange(height * width).reshape(height, width)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(2, 9), width=st.integers(2, 9), times=st.integers(1, 4))
def test_a_map_follows_its_image(height: int, width: int, times: int) -> None:
    classes = grid(height, width)
    size = height * times, width * times
    larger = classes.repeat_interleave(times, 0).repeat_interleave(times, 1)
    resized = place((height, width), Preprocessing(resize=size), "image")
    assert torch.equal(placed_map(classes, resized), larger)
    boxed = place((height, width), Preprocessing(letterbox=(size[0] + 6, size[1])), "image")
    borders = torch.full((3, size[1]), NOWHERE)
    assert torch.equal(placed_map(classes, boxed), torch.cat([borders, larger, borders]))
    cropped = place((height, width), Preprocessing(resize=size, crop=(size[0] - 2, size[1] - 2)), "image")
    if min(cropped.output) > 0:
        assert torch.equal(placed_map(classes, cropped), larger[1:-1, 1:-1])


def detections(*rows: tuple[float, ...]) -> Boxes:
    values = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return Boxes(values[:, :4], np.zeros(len(rows), np.int64), values[:, 4])


def test_what_lies_in_a_crowd_is_no_error() -> None:
    """Above the right detection are one inside a crowd and one elsewhere: precision 1/2, not 1/3."""
    given = [detections((50, 0, 60, 10, 0.9), (80, 80, 90, 90, 0.8), (0, 0, 10, 10, 0.7))]
    truth = Boxes(np.array([[0.0, 0, 10, 10]]), np.zeros(1, np.int64))
    crowd = Boxes(
        truth.corners,
        truth.classes,
        crowds=np.array([[40.0, 0, 70, 30]]),
        crowd_classes=np.zeros(1, np.int64),
    )
    weights = np.ones((1, 1), np.float32)
    plain, ignoring = (average_precisions(match_classes([t], given), weights).mean() for t in (truth, crowd))
    assert plain == pytest.approx(1 / 3)
    assert ignoring == pytest.approx(1 / 2)


def test_measures_judge_by_the_labels(folder: Path, tmp_path: Path) -> None:
    """A network that finds all boxes but two classes wrong: AP by hand, against labels."""
    calibration = load_calibration(
        folder, labels=coco(folder, tmp_path / "boxes.json"), task=Task.DETECTION, held_out_fraction=0.9
    )
    options = TaskOptions(task=Task.DETECTION)
    calibration, notes = for_task(calibration, options)
    held = calibration.held_out
    assert not notes
    assert held.truth is not None
    assert held.truth.boxes is not None
    outputs = np.zeros((len(held), 8, 6), np.float32)
    outputs[:, 1:, 2:4] = 1
    for row, image in zip(outputs, held.truth.boxes, strict=True):
        row[0, :4] = image.boxes[0].corners
        row[0, 4 + image.boxes[0].class_index] = 0.9
    measure = measure_for(options, [outputs], held)
    assert measure.kind is AccuracyKind.AP
    assert measure.value([outputs]) == pytest.approx(1.0)
    moved = outputs.copy()
    moved[:, 0, :4] += 100
    assert measure.value([moved]) == pytest.approx(0.0)


def test_maps_are_judged_at_the_size_of_the_output(tmp_path: Path) -> None:
    maps = torch.zeros(4, 8, 8, dtype=torch.int64)
    maps[:, :, 4:] = 1
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=maps.numpy())
    calibration = load_calibration(tmp_path / "data.npz", task=Task.SEGMENTATION, held_out_fraction=0.5)
    scores = np.zeros((2, 2, 4, 4), np.float32)
    scores[:, 1, :, 2:] = 1
    scores[:, 1, :, :2] = -1
    measure = measure_for(TaskOptions(task=Task.SEGMENTATION), [scores], calibration.held_out)
    assert measure.kind is AccuracyKind.MEAN_IOU
    assert measure.value([scores]) == pytest.approx(1.0)
    assert "(8, 8), brought to (4, 4)" in measure.notes[0]
    assert measure.value([-scores]) == pytest.approx(0.0)
