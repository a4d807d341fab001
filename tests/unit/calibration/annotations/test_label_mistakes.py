"""Labels in another unit, with other numbers of classes, or of another task than the network's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import noise, save_as

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.truth import Box, ImageBoxes, Truth
from edgeprune.calibration import load_calibration
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.evaluation.base import Measure
from edgeprune.evaluation.registry import measure_for
from edgeprune.options.subjects import TaskOptions

COUNT, HEIGHT, WIDTH = 12, 20, 40
SQUARE = (4.0, 6.0, 12.0, 14.0)


def detector(boxes: list[tuple[float, ...]]) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Outputs (n, 1, 6) of a detector that finds such a box, its score and its class in every image."""
    return [np.array([boxes] * COUNT, dtype=np.float32)]


def judged(outputs: list[np.ndarray]) -> Measure:  # type: ignore[type-arg]
    shown = ImageBoxes(file="a", size=(HEIGHT, WIDTH), boxes=(Box(corners=SQUARE, class_index=1),))
    batch = ImageBatch(
        images=torch.zeros(COUNT, 1, HEIGHT, WIDTH), labels=None, truth=Truth(boxes=(shown,) * COUNT)
    )
    return measure_for(TaskOptions(task=Task.DETECTION), outputs, batch)


@pytest.mark.parametrize(("box", "in_shares"), [(SQUARE, False), ((0.1, 0.3, 0.3, 0.7), True)])
def test_average_precision_is_that_computed_by_hand(box: tuple[float, ...], in_shares: bool) -> None:
    measure = judged(detector([(*box, 0.9, 1.0)]))
    assert measure.value(measure.reference.original) == pytest.approx(1.0)
    assert ("in shares of the input" in measure.notes[0]) == in_shares
    # 7 of 8 rows: an IoU of .875 is a hit at eight of the ten levels.
    lower = (box[0], box[1], box[2], box[3] - (box[3] - box[1]) / 8)
    assert measure.points_lost(detector([(*lower, 0.9, 1.0)])) == pytest.approx(20.0)


def test_classes_that_are_numbered_otherwise_are_told() -> None:
    told = judged(detector([(*SQUARE, 0.9, 2.0)])).nothing_to_lose()
    assert "AP50 is 100.0% without regard to classes" in str(told)
    assert "check labels and" in str(judged(detector([(20.0, 0, 30, 5, 0.9, 1.0)])).nothing_to_lose())


def test_masks_of_black_and_white_are_refused() -> None:
    maps = torch.zeros(COUNT, HEIGHT, WIDTH, dtype=torch.int64)
    maps[:, :4] = 255
    batch = ImageBatch(images=torch.zeros(COUNT, 1, HEIGHT, WIDTH), labels=None, truth=Truth(maps=maps))
    scores = [np.random.default_rng(0).normal(size=(COUNT, 2, HEIGHT, WIDTH)).astype(np.float32)]
    with pytest.raises(CalibrationError, match="save it as class 1"):
        measure_for(TaskOptions(task=Task.SEGMENTATION), scores, batch)


def test_labels_of_another_task_and_texts_without_names(tmp_path: Path) -> None:
    for number in range(4):
        save_as(tmp_path / "images" / f"{number}.png", noise(HEIGHT, WIDTH, seed=number))
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{number}.txt").write_text("3 0.5 0.5 0.2 0.2\n")
    (tmp_path / "boxes.json").write_text("{}")
    for labels, task, said in (
        ("boxes.json", Task.AUTO, "without --task detection"),
        ("boxes.json", Task.EMBEDDING, "leave it out"),
    ):
        with pytest.raises(UsageError, match=said):
            load_calibration(tmp_path / "images", labels=tmp_path / labels, task=task)
    found = load_calibration(tmp_path / "images", labels=tmp_path / "texts", task=Task.DETECTION)
    assert found.class_names is None
    assert found.fitting.truth is not None
    assert found.fitting.truth.boxes is not None
    assert found.fitting.truth.boxes[0].boxes[0].class_index == 3
