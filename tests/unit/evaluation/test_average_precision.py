"""Average precision: cases worked by hand, and what must hold for all detections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.evaluation.average_precision import IOUS, average_precisions, f1_score, match_classes
from edgeprune.evaluation.base import Boxes, bootstrap_weights

SQUARE = [0.0, 0.0, 10.0, 10.0]
FAR = [100.0, 100.0, 110.0, 110.0]
FARTHER = [200.0, 200.0, 210.0, 210.0]


def boxes(
    corners: list[list[float]], scores: list[float] | None = None, classes: list[int] | None = None
) -> Boxes:
    return Boxes(
        np.array(corners, dtype=np.float64).reshape(-1, 4),
        np.array(classes or [0] * len(corners), dtype=np.int64),
        None if scores is None else np.array(scores, dtype=np.float64),
    )


def levels(truth: list[Boxes], found: list[Boxes]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return average_precisions(match_classes(truth, found), np.ones((1, len(truth)), np.float32))[0]


def test_the_same_boxes_have_a_precision_of_one() -> None:
    assert levels([boxes([SQUARE, FAR])], [boxes([SQUARE, FAR], [0.9, 0.5])]) == pytest.approx(np.ones(10))


def test_a_false_detection_in_between_by_hand() -> None:
    # Hit, miss, hit: precision 1 up to recall .5 (51 of 101 recalls), 2/3 up to 1 (50 of them).
    found = boxes([SQUARE, FARTHER, FAR], [0.9, 0.8, 0.7])
    wanted = (51 + 50 * 2 / 3) / 101
    assert levels([boxes([SQUARE, FAR])], [found]) == pytest.approx(np.full(10, wanted))


def test_a_box_that_is_never_found_by_hand() -> None:
    assert levels([boxes([SQUARE, FAR])], [boxes([SQUARE], [0.9])]) == pytest.approx(np.full(10, 51 / 101))


def test_a_false_detection_before_the_first_hit_by_hand() -> None:
    found = boxes([FARTHER, SQUARE], [0.9, 0.8])
    assert levels([boxes([SQUARE])], [found]) == pytest.approx(np.full(10, 0.5))


def test_an_overlap_of_three_quarters_counts_up_to_that() -> None:
    # 10 x 10 within 10 x 7.5: IoU exactly .75, which counts at .75.
    found = boxes([[0.0, 0.0, 10.0, 7.5]], [0.9])
    assert levels([boxes([SQUARE])], [found]).tolist() == [float(iou <= 0.75) for iou in IOUS]


def test_a_second_detection_of_one_box_is_false() -> None:
    found = boxes([SQUARE, SQUARE, FAR], [0.9, 0.8, 0.7])
    assert levels([boxes([SQUARE, FAR])], [found])[0] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_classes_are_matched_apart_and_count_alike() -> None:
    truth = boxes([SQUARE, FAR], classes=[0, 1])
    swapped = boxes([SQUARE, FAR], [0.9, 0.8], [1, 0])
    assert levels([truth], [swapped]).tolist() == [0.0] * 10
    half = boxes([SQUARE], [0.9], [0])
    assert levels([truth], [half]) == pytest.approx(np.full(10, 0.5))


def test_classes_without_a_box_in_the_truth_do_not_count() -> None:
    found = boxes([SQUARE, FAR], [0.9, 0.8], [0, 7])
    assert levels([boxes([SQUARE])], [found]) == pytest.approx(np.ones(10))


def test_the_best_overlap_is_taken_of_those_still_free() -> None:
    near = [0.0, 0.0, 10.0, 9.0]
    found = boxes([SQUARE, SQUARE], [0.9, 0.8])
    matches = match_classes([boxes([near, SQUARE])], [found])[0]
    assert matches.hits[:, 0].all()
    assert matches.hits[:, 1].tolist() == [iou <= 0.9 for iou in IOUS]


def test_detections_of_all_images_are_ranked_together() -> None:
    truth = [boxes([SQUARE]), boxes([SQUARE])]
    found = [boxes([FAR], [0.95]), boxes([SQUARE], [0.9])]
    assert levels(truth, found)[0] == pytest.approx(51 / 101 * 0.5)


def test_f1_by_hand() -> None:
    matches = match_classes([boxes([SQUARE, FAR])], [boxes([SQUARE, FARTHER, FAR], [0.9, 0.6, 0.1])])
    assert f1_score(matches, 0.25) == pytest.approx(2 * 1 / (2 + 2))
    assert f1_score(match_classes([boxes([])], [boxes([], [])]), 0.25) == 1.0


def test_an_image_that_counts_twice_is_as_the_image_repeated() -> None:
    truth = [boxes([SQUARE, FAR]), boxes([FAR])]
    found = [boxes([SQUARE, FARTHER], [0.9, 0.8]), boxes([FAR], [0.7])]
    weighted = average_precisions(match_classes(truth, found), np.array([[2, 1]], np.float32))[0]
    assert weighted == pytest.approx(levels([truth[0], *truth], [found[0], *found]))


COORDINATES = st.integers(min_value=0, max_value=40)


@st.composite
def detections(draw: st.DrawFn) -> Boxes:
    count = draw(st.integers(min_value=1, max_value=8))
    low = np.array([[draw(COORDINATES), draw(COORDINATES)] for _ in range(count)], dtype=np.float64)
    size = np.array([[1 + draw(COORDINATES), 1 + draw(COORDINATES)] for _ in range(count)], dtype=np.float64)
    classes = np.array([draw(st.integers(0, 2)) for _ in range(count)], dtype=np.int64)
    scores = np.array(draw(st.permutations(range(1, count + 1))), dtype=np.float64) / (count + 1)
    return Boxes(np.concatenate([low, low + size], axis=1), classes, scores)


@settings(max_examples=60, deadline=None)
@given(st.lists(detections(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_neither_order_nor_scale_of_boxes_matters(found: list[Boxes], random: object) -> None:
    truth = [Boxes(b.corners + 1.0, b.classes) for b in found]
    before = levels(truth, found)
    assert ((before >= 0) & (before <= 1 + 1e-12)).all()
    assert (np.diff(before) <= 1e-12).all()

    def shuffled(b: Boxes) -> Boxes:
        places = list(range(len(b)))
        random.shuffle(places)  # type: ignore[attr-defined]
        assert b.scores is not None
        return Boxes(b.corners[places], b.classes[places], b.scores[places])

    assert levels(truth, [shuffled(b) for b in found]) == pytest.approx(before)
    scaled = [Boxes(4.0 * b.corners, b.classes, b.scores) for b in (*truth, *found)]
    assert levels(scaled[: len(truth)], scaled[len(truth) :]) == pytest.approx(before)


@settings(max_examples=40, deadline=None)
@given(st.lists(detections(), min_size=1, max_size=4))
def test_what_is_its_own_truth_loses_nothing_in_any_draw(found: list[Boxes]) -> None:
    truth = [Boxes(b.corners, b.classes) for b in found]
    drawn = average_precisions(match_classes(truth, found), bootstrap_weights(len(found), 3)[:50])
    assert drawn[np.isfinite(drawn)] == pytest.approx(1.0)
    silent = [Boxes(b.corners[:0], b.classes[:0], np.zeros(0)) for b in found]
    assert levels(truth, silent).tolist() == [0.0] * 10
