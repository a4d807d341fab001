"""Layouts of detectors' outputs: what is read out of each, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeprune.artifacts.choices import BoxFormat
from edgeprune.errors import UsageError
from edgeprune.evaluation.base import Boxes
from edgeprune.evaluation.boxes import detections, infer_layout

IMAGES, ANCHORS = 3, 40


def raw(classes: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Boxes far apart as corners (n, anchors, 4), and class scores, low but for every tenth anchor."""
    generator = np.random.default_rng(seed)
    low = 30.0 * np.arange(ANCHORS)[None, :, None] + generator.uniform(0, 5, (IMAGES, ANCHORS, 2))
    corners = np.concatenate([low, low + generator.uniform(5, 20, (IMAGES, ANCHORS, 2))], axis=2)
    scores = generator.uniform(0.001, 0.1, (IMAGES, ANCHORS, classes))
    for anchor in range(0, ANCHORS, 10):
        scores[:, anchor, anchor % classes] = generator.uniform(0.5, 0.99, IMAGES)
    return corners, scores


def as_centres(corners: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(
        [(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], axis=-1
    )


def told(found: tuple[Boxes, ...]) -> list[tuple[NDArray[Any], list[int]]]:
    return [(b.corners, b.classes.tolist()) for b in found]


def expected(corners: NDArray[Any], scores: NDArray[Any]) -> tuple[Boxes, ...]:
    best = zip(corners, scores.max(2), scores.argmax(2), strict=True)
    return tuple(detections(c, s, k, suppress=True) for c, s, k in best)


def behind_objectness(scores: NDArray[Any]) -> NDArray[Any]:
    """Scores behind an objectness, as class scores that are high where there is nothing, too."""
    top = scores.max(2, keepdims=True)
    return np.concatenate([top / 0.99, 0.99 * scores / top], axis=2)


@pytest.mark.parametrize("classes", [1, 2, 3, 7])
@pytest.mark.parametrize("corners_given", [True, False])
@pytest.mark.parametrize("anchors_last", [True, False])
@pytest.mark.parametrize("objectness", [True, False])
def test_every_layout_of_one_tensor_is_told(
    classes: int, corners_given: bool, anchors_last: bool, objectness: bool
) -> None:
    corners, scores = raw(classes)
    parts = corners if corners_given else as_centres(corners)
    rows = np.concatenate([parts, behind_objectness(scores) if objectness else scores], axis=2)
    output = [(rows.swapaxes(1, 2) if anchors_last else rows).astype(np.float32)]
    layout = infer_layout(output)
    assert (layout.corners, layout.objectness) == (corners_given, objectness)
    for given, wanted in zip(layout.decode(output), expected(corners, scores), strict=True):
        assert given.corners == pytest.approx(wanted.corners, abs=1e-3)
        assert given.classes.tolist() == wanted.classes.tolist()
        assert given.scores == pytest.approx(wanted.scores, abs=1e-5)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("anchors_last", [True, False])
def test_boxes_beside_scores_in_either_order(first: bool, anchors_last: bool) -> None:
    corners, scores = raw(5)
    pair = [a.swapaxes(1, 2) if anchors_last else a for a in (corners, scores)]
    outputs = [p.astype(np.float64) for p in (pair if first else pair[::-1])]
    found = infer_layout(outputs).decode(outputs)  # type: ignore[arg-type]
    for given, wanted in zip(found, expected(corners, scores), strict=True):
        assert given.corners == pytest.approx(wanted.corners)
        assert given.classes.tolist() == wanted.classes.tolist()


def test_final_boxes_are_taken_as_they_are() -> None:
    corners, scores = raw(3)
    rows = np.concatenate([corners, scores.max(2)[..., None], scores.argmax(2)[..., None]], axis=2)
    rows[:, 5:] = 0.0  # padding
    found = infer_layout([rows]).decode([rows])
    assert [len(b) for b in found] == [5] * IMAGES
    assert found[0].classes[0] in (0, 1, 2)


def test_the_layout_can_be_given() -> None:
    corners, scores = raw(3)
    output = [np.concatenate([corners, scores], axis=2)]
    assert infer_layout(output, BoxFormat.XYWH).corners is False
    assert infer_layout(output, BoxFormat.XYXY_OBJECTNESS).objectness is True
    five = [np.concatenate([corners, scores[..., :1]], axis=2)]
    with pytest.raises(UsageError, match="leaves no class score behind an objectness"):
        infer_layout(five, BoxFormat.XYWH_OBJECTNESS)


def test_duplicates_leave_within_a_class_alone() -> None:
    corners = np.array([[0, 0, 10, 10], [0, 0, 10, 9.5], [0, 0, 10, 9.6], [0, 0, 10, 5]], dtype=np.float64)
    scores, classes = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 0])
    found = detections(corners, scores, classes, suppress=True)
    assert found.scores is not None
    assert found.scores.tolist() == [0.9, 0.7, 0.6]
    assert len(detections(corners, scores, classes, suppress=False)) == 4


def test_boxes_without_area_or_number_are_none() -> None:
    corners = np.array([[0, 0, 0, 10], [5, 5, 1, 1], [0, 0, np.nan, 1], [0, 0, 1, 1]], dtype=np.float64)
    assert len(detections(corners, np.full(4, 0.9), np.zeros(4, np.int64), suppress=True)) == 1
    assert not len(detections(corners, np.zeros(4), np.zeros(4, np.int64), suppress=True))


@pytest.mark.parametrize(
    "shapes",
    [[(4, 10)], [(4, 3, 8, 8)], [(4, 4, 4)], [(4, 9, 4), (4, 8, 3)], [(4, 9, 4), (4, 9, 3), (4, 9)], [(4,)]],
)
def test_other_outputs_are_refused_in_a_sentence(shapes: list[tuple[int, ...]]) -> None:
    outputs = [np.linspace(0, 1, int(np.prod(s)), dtype=np.float32).reshape(s) for s in shapes]
    with pytest.raises(UsageError, match=r"--task detection was given, and the network's outputs are"):
        infer_layout(outputs)


def test_scores_that_are_no_probabilities_are_refused() -> None:
    corners, scores = raw(3)
    with pytest.raises(UsageError, match=r"with scores in 0\.\.1"):
        infer_layout([np.concatenate([corners, 10 * scores - 5], axis=2)])
