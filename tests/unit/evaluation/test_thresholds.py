"""How many detections cross a threshold, estimated from the errors of all: right on average, and steadier."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.evaluation.base import Boxes
from edgeprune.evaluation.thresholds import expected_changes

IMAGES, EACH = 30, 6


def detections(scores: FloatArray) -> tuple[Boxes, ...]:
    """Boxes side by side in each image, with these scores (images, boxes)."""
    corners = np.array([[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(scores.shape[1])])
    return tuple(Boxes(corners, np.zeros(len(row), np.int64), row) for row in scores)


def moved(scores: FloatArray, size: float, rng: np.random.Generator) -> FloatArray:
    odds = np.log(scores / (1 - scores)) + size * rng.standard_normal(scores.shape)
    return np.asarray(1 / (1 + np.exp(-odds)))


@pytest.mark.parametrize("size", [0.05, 0.2, 0.5])
def test_the_estimate_is_that_of_many_draws_and_varies_less(size: float) -> None:
    rng = np.random.default_rng(0)
    counted, estimated = [], []
    for _ in range(60):
        scores = rng.uniform(0.08, 0.7, (IMAGES, EACH))
        after = moved(scores, size, rng)
        counted.append(((scores >= 0.25) != (after >= 0.25)).sum())
        estimated.append(expected_changes(detections(scores), detections(after), 0.25))
    assert np.mean(estimated) == pytest.approx(np.mean(counted), rel=0.2)
    assert np.std(estimated) < 0.8 * np.std(counted)


def test_boxes_without_a_counterpart_count_whole() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.3, 0.7, (IMAGES, EACH))
    before = detections(scores)
    assert expected_changes(before, before, 0.25) == 0
    gone = tuple(Boxes(b.corners[1:], b.classes[1:], b.scores[1:]) for b in before if b.scores is not None)
    assert expected_changes(before, gone, 0.25) == IMAGES
    assert expected_changes(gone, before, 0.25) == IMAGES
    others = tuple(Boxes(b.corners, b.classes + 1, b.scores) for b in before)
    assert expected_changes(before, others, 0.25) == 2 * IMAGES * EACH


def test_few_detections_are_counted() -> None:
    before, after = detections(np.array([[0.3, 0.2, 0.6]])), detections(np.array([[0.24, 0.26, 0.5]]))
    assert expected_changes(before, after, 0.25) == 2
    nothing = (Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0)),)
    assert expected_changes(nothing, nothing, 0.25) == 0
    assert expected_changes(before, nothing, 0.25) == 2
    assert expected_changes(nothing, before, 0.25) == 2
