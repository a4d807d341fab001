"""Why no loss can be told from images: hardly anything to find, or an original that does not find it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import BoxFormat, Task
from edgeprune.evaluation.base import Boxes, Labels, Reference
from edgeprune.evaluation.detection import DetectionMeasure
from edgeprune.evaluation.registry import measure_for
from edgeprune.evaluation.segmentation import SegmentationMeasure
from edgeprune.options.subjects import TaskOptions
from edgeprune.parity import Outputs

IMAGES = 12


def judged(*shape: int) -> str | None:
    """Why nothing can be told of random outputs of this shape."""
    outputs = [np.random.default_rng(5).normal(size=(IMAGES, *shape)).astype(np.float32)]
    batch = ImageBatch(images=torch.zeros(IMAGES, 1, 8, 8), labels=None)
    return measure_for(TaskOptions(), outputs, batch).nothing_to_lose()


def segmented(maps: np.ndarray, classes: int, *, one_channel: bool = False) -> Outputs:
    """Scores (n, classes, h, w) that decide on these classes."""
    if one_channel:
        return [np.where(maps, 0.9, 0.1).astype(np.float32)[:, None]]
    return [(np.arange(classes)[:, None, None] == maps[:, None]).astype(np.float32)]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("only", [0, 1])
@pytest.mark.parametrize("one_channel", [True, False])
def test_maps_of_one_class_are_nothing_to_judge_by(labelled: bool, only: int, one_channel: bool) -> None:
    maps = np.full((IMAGES, 32, 32), only)
    outputs = segmented(maps, 2, one_channel=one_channel)
    labels = Labels(maps=maps) if labelled else Labels()
    measure = SegmentationMeasure(Reference(outputs, labels))
    told = str(measure.nothing_to_lose())
    assert ("label maps" if labelled else "the original's own segmentation") in told
    assert f"no class other than {only} in the held-out images" in told
    maps[0, :3, :3] = 1 - only
    few = SegmentationMeasure(Reference(segmented(maps, 2, one_channel=one_channel), labels))
    assert "9 pixels of classes other" in str(few.nothing_to_lose())
    maps[:, :3, :3] = 1 - only
    enough = SegmentationMeasure(Reference(segmented(maps, 2, one_channel=one_channel), labels))
    assert enough.nothing_to_lose() is None


def test_pixels_that_count_nowhere_are_no_class_to_judge_by() -> None:
    maps = np.zeros((IMAGES, 32, 32), dtype=np.int64)
    maps[:, :8], maps[0, 9, 9] = 255, 1
    measure = SegmentationMeasure(Reference(segmented(np.zeros_like(maps), 2), Labels(maps=maps)))
    assert "1 pixel of classes other than 0" in str(measure.nothing_to_lose())


def test_an_original_that_finds_no_object_has_no_segmentation_to_lose() -> None:
    maps = np.zeros((IMAGES, 32, 32), dtype=np.int64)
    maps[:, :8] = 1
    measure = SegmentationMeasure(Reference(segmented(np.zeros_like(maps), 2), Labels(maps=maps)))
    assert "gets no pixel right of classes other than 0" in str(measure.nothing_to_lose())


@pytest.mark.parametrize(
    ("images", "right", "classes", "told"),
    [
        (40, 6, 10, "the original itself is right on only 6 of 40 held-out images (check the labels"),
        (120, 20, 2, "right on only 20 of 120 held-out images, no more than by guessing among 2 classes"),
        (120, 12, 10, "no more than by guessing among 10 classes"),
        (6, 6, 2, "there are 6 held-out images, and 10 are the fewest to judge by"),
        (1, 1, 2, "there is 1 held-out image, and 10"),
        (120, 13, 10, None),
        (20, 11, 2, None),
    ],
)
@pytest.mark.parametrize("task", [Task.AUTO, Task.CLASSIFICATION])
def test_an_original_without_right_answers_has_none_to_lose(
    task: Task, images: int, right: int, classes: int, told: str | None
) -> None:
    answers = np.arange(images) % classes
    outputs = [np.eye(classes, dtype=np.float32)[answers]]
    labels = np.where(np.arange(images) < right, answers, (answers + 1) % classes)
    batch = ImageBatch(images=torch.zeros(images, 1, 8, 8), labels=torch.from_numpy(labels))
    found = measure_for(TaskOptions(task=task), outputs, batch).nothing_to_lose()
    assert found is None if told is None else told in str(found)


def test_the_original_s_own_answers_are_enough_to_judge_by() -> None:
    assert judged(4) is None
    assert judged(4, 8, 8) is None


@pytest.mark.parametrize(("count", "said"), [(1, "there is 1 box in"), (9, "there are 9 boxes in")])
def test_few_boxes_are_counted_in_the_right_number(count: int, said: str) -> None:
    rows = np.zeros((IMAGES, 10, 6), np.float32)
    rows[..., 2:4], rows[..., 5] = 20, 0.01
    rows[0, :count, :2] = 30 * np.arange(count)[:, None]
    rows[0, :count, 2:4] = rows[0, :count, :2] + 20
    rows[0, :count, 4] = 0.9
    measure = DetectionMeasure(Reference([rows]), BoxFormat.XYXY)
    assert said in str(measure.nothing_to_lose())
    assert f"{count} box{'' if count == 1 else 'es'} in 12 images" in measure.notes[0]


def test_an_average_precision_that_is_shown_as_zero_is_told() -> None:
    """One box of 240 is found, behind many that are none."""
    low = 9.0 * np.arange(200)[None, :, None] + np.zeros((IMAGES, 1, 2))
    scored = np.linspace(0.9, 0.3, 200)[None, :, None] + np.zeros((IMAGES, 1, 1))
    outputs = [np.concatenate([low, low + 8, scored], axis=2).astype(np.float32)]
    away = low[:, :20] + 5000
    away[0, 0] = low[0, 90]
    truth = tuple(Boxes(np.concatenate([a, a + 8], axis=1), np.zeros(20, np.int64)) for a in away)
    measure = DetectionMeasure(Reference(outputs, Labels(boxes=truth)), BoxFormat.XYXY)
    assert 0 < measure.value(outputs) < 0.01
    assert "finds hardly any of the labelled boxes (AP 0.0" in str(measure.nothing_to_lose())
