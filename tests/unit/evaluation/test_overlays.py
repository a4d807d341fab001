"""Boxes and class maps of every image, and how far two networks differ on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.artifacts.choices import BoxFormat
from edgeprune.evaluation.base import Reference
from edgeprune.evaluation.detection import DetectionMeasure
from edgeprune.evaluation.differences import difference
from edgeprune.evaluation.overlays import Overlay
from edgeprune.evaluation.segmentation import SegmentationMeasure


def boxes(*rows: tuple[float, float, float, float, int]) -> Overlay:
    values = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return Overlay(boxes=values[:, :4], classes=values[:, 4].astype(np.int64))


ONE, TWO = (0.1, 0.1, 0.4, 0.4, 0), (0.5, 0.5, 0.9, 0.9, 1)


@pytest.mark.parametrize(
    ("before", "after", "apart"),
    [
        (boxes(ONE, TWO), boxes(TWO, ONE), 0),
        (boxes(ONE, TWO), boxes(ONE), 1),
        (boxes(), boxes(ONE), 1),
        (boxes(), boxes(), 0),
        (boxes(ONE), boxes((*ONE[:4], 1)), 2),
        (boxes(ONE), boxes((0.12, 0.1, 0.42, 0.4, 0)), 0),
        (boxes(ONE), boxes((0.3, 0.3, 0.6, 0.6, 0)), 2),
        (boxes(ONE, ONE), boxes(ONE), 1),
    ],
)
def test_boxes_differ_by_those_that_only_one_has(before: Overlay, after: Overlay, apart: float) -> None:
    assert difference(before, after) == difference(after, before) == apart


def test_maps_differ_by_the_share_of_pixels() -> None:
    one, other = np.zeros((4, 5), dtype=np.int64), np.zeros((4, 5), dtype=np.int64)
    other[0, :2] = 3
    assert difference(Overlay(map=one), Overlay(map=other)) == pytest.approx(0.1)
    assert difference(Overlay(map=one), Overlay(map=one)) == 0.0
    assert Overlay(map=other).words == "2 classes"
    assert Overlay(map=one).words == "1 class"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4, st.integers(0, 2)), max_size=6), st.randoms())
def test_an_order_of_boxes_makes_no_difference(rows, shuffler) -> None:
    placed = [(min(a, c), min(b, d), max(a, c) + 0.01, max(b, d) + 0.01, k) for a, b, c, d, k in rows]
    mixed = list(placed)
    shuffler.shuffle(mixed)
    assert difference(boxes(*placed), boxes(*placed)) == 0
    assert boxes(*placed).words == f"{len(placed)} {'box' if len(placed) == 1 else 'boxes'}"
    assert difference(boxes(*placed), boxes(*mixed)) <= 2 * len(placed)


def test_a_detector_draws_its_confident_boxes_as_shares_of_the_image() -> None:
    rows = np.zeros((2, 3, 6), dtype=np.float32)
    rows[:, 0] = (4, 8, 20, 40, 0.9, 0.1)
    rows[:, 1] = (0, 0, 8, 8, 0.2, 0.1)
    rows[0, 2] = (32, 64, 64, 128, 0.1, 0.8)
    measure = DetectionMeasure(Reference([rows], input_size=(128, 64)), BoxFormat.XYXY)
    first, second = measure.overlays([rows])
    np.testing.assert_allclose(first.boxes, [[4 / 64, 8 / 128, 20 / 64, 40 / 128], [0.5, 0.5, 1, 1]])
    assert first.classes.tolist() == [0, 1]
    assert (first.words, second.words) == ("2 boxes", "1 box")


def test_a_detector_in_shares_is_not_divided_again() -> None:
    rows = np.zeros((3, 2, 6), dtype=np.float32)
    rows[:, 0] = (0.25, 0.25, 0.5, 0.75, 0.9, 0.1)
    rows[:, 1] = (0.5, 0.5, 1.0, 1.0, 0.1, 0.8)
    measure = DetectionMeasure(Reference([rows], input_size=(128, 64)), BoxFormat.XYXY)
    np.testing.assert_allclose(measure.overlays([rows])[0].boxes[0], (0.25, 0.25, 0.5, 0.75))


def test_a_segmenter_draws_its_classes() -> None:
    scores = np.random.default_rng(0).normal(size=(4, 3, 6, 7)).astype(np.float32)
    measure = SegmentationMeasure(Reference([scores]))
    for image, overlay in enumerate(measure.overlays([scores])):
        np.testing.assert_array_equal(overlay.map, scores[image].argmax(0))
