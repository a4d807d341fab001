"""Measures of the tasks: hand-worked cases, identity, silence, labels, and outputs that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import BoxFormat, Task
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.commands.search.paired_drop import drop_of
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.evaluation.base import Boxes, Labels, Measure, Reference
from edgeprune.evaluation.detection import DetectionMeasure
from edgeprune.evaluation.embedding import EmbeddingMeasure
from edgeprune.evaluation.registry import check_task, measure_for
from edgeprune.evaluation.regression import RegressionMeasure
from edgeprune.evaluation.segmentation import SegmentationMeasure
from edgeprune.options.subjects import TaskOptions
from edgeprune.parity import Outputs

IMAGES = 12
GENERATOR = np.random.default_rng(5)


def detector() -> Outputs:
    low = 40.0 * np.arange(10)[None, :, None] + GENERATOR.uniform(0, 9, (IMAGES, 10, 2))
    rows = np.concatenate([low, low + 20, GENERATOR.uniform(0, 0.2, (IMAGES, 10, 3))], axis=2)
    rows[:, ::3, 4] = GENERATOR.uniform(0.4, 1, (IMAGES, 4))
    rows[:, 1::3, 5] = GENERATOR.uniform(0.4, 1, (IMAGES, 3))
    return [rows.astype(np.float32)]


def scores(*shape: int) -> Outputs:
    return [GENERATOR.normal(size=(IMAGES, *shape)).astype(np.float32)]


def measured(task: Task, outputs: Outputs) -> Measure:
    return measure_for(
        TaskOptions(task=task), outputs, ImageBatch(images=torch.zeros(IMAGES, 1, 8, 8), labels=None)
    )


CASES = {
    Task.AUTO: scores(4),
    Task.CLASSIFICATION: scores(4),
    Task.DETECTION: detector(),
    Task.SEGMENTATION: scores(3, 8, 8),
    Task.REGRESSION: scores(5),
    Task.EMBEDDING: scores(16),
}


@pytest.mark.parametrize("task", CASES)
def test_the_original_loses_nothing(task: Task) -> None:
    outputs = CASES[task]
    measure = measured(task, outputs)
    same = [o.copy() for o in outputs]
    figure = measure.figure(same)
    assert figure.value == pytest.approx(0.0 if measure.kind.is_error else 1.0)
    assert figure.low <= figure.value <= figure.high
    if measure.counts_points:
        assert measure.points_lost(same) == pytest.approx(0.0)
    if measure.answers(same) is None:
        loss = measure.loss(same)
        assert loss is not None
        assert (loss.value, loss.low) == pytest.approx((0.0, 0.0))
        assert loss.high == pytest.approx(0.0) or task is Task.EMBEDDING


@pytest.mark.parametrize("task", [t for t in CASES if t not in (Task.AUTO, Task.CLASSIFICATION)])
def test_silence_loses_much_and_the_interval_has_the_value(task: Task) -> None:
    outputs = CASES[task]
    measure = measured(task, outputs)
    silent = [np.zeros_like(o) for o in outputs]
    figure, loss = measure.figure(silent), measure.loss(silent)
    assert loss is not None
    assert loss.low <= loss.value <= loss.high
    assert loss.value > 0.5
    assert figure.low <= figure.value <= figure.high
    if task is Task.DETECTION:
        assert figure.value == 0.0
        assert measure.points_lost(silent) == pytest.approx(100.0)


def test_the_order_of_anchors_and_the_scale_do_not_matter() -> None:
    outputs = CASES[Task.DETECTION]
    measure = measured(Task.DETECTION, outputs)
    worse = [
        outputs[0]
        + GENERATOR.normal(0, 2, outputs[0].shape).astype(np.float32)
        * np.array([1, 1, 1, 1, 0, 0, 0], np.float32)
    ]
    assert measure.value(worse) < 1.0
    shuffled = [worse[0][:, GENERATOR.permutation(10)]]
    assert measure.value(shuffled) == pytest.approx(measure.value(worse))
    factor = np.array([2, 2, 2, 2, 1, 1, 1], np.float32)
    scaled = measured(Task.DETECTION, [outputs[0] * factor])
    assert scaled.value([worse[0] * factor]) == pytest.approx(measure.value(worse))


def test_the_same_seed_draws_the_same_interval() -> None:
    outputs = CASES[Task.SEGMENTATION]
    worse = [outputs[0] + GENERATOR.normal(0, 0.5, outputs[0].shape).astype(np.float32)]
    figures = [SegmentationMeasure(Reference(outputs, seed=seed)).figure(worse) for seed in (1, 1, 2)]
    assert figures[0] == figures[1] != figures[2]


def test_mean_iou_by_hand() -> None:
    original = np.zeros((1, 2, 1, 4), np.float32)
    original[0, 1, 0] = [-1, -1, 1, 1]
    given = original.copy()
    given[0, 1, 0] = [-1, 1, 1, 1]
    measure = SegmentationMeasure(Reference([original]))
    # Class 0: one pixel of two in common; class 1: two of three.
    assert measure.value([given]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert measure.more([given]) == "pixels of the same class 75.00%"
    labels = Labels(maps=np.array([[[0, 1, 255, 1]]]))
    labelled = SegmentationMeasure(Reference([original], labels))
    assert labelled.kind is AccuracyKind.MEAN_IOU
    assert labelled.value([original]) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert labelled.value([given]) == 1.0
    assert labelled.points_lost([given]) == pytest.approx(-50.0)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("classes", [1, 3])
def test_classes_along_either_axis(last: bool, classes: int) -> None:
    outputs = scores(classes, 8, 8)
    outputs = [outputs[0].transpose(0, 2, 3, 1)] if last else outputs
    measure = SegmentationMeasure(Reference(outputs))
    flipped = [-outputs[0]]
    counted = (
        "(n, 8, 8, {}), has its classes along axis 3"
        if last
        else "(n, {}, 8, 8), has its classes along axis 1"
    )
    assert counted.format(classes) in measure.notes[0]
    assert measure.value(outputs) == 1.0
    assert measure.value(flipped) < 0.2


def test_probabilities_of_one_class_are_cut_at_a_half() -> None:
    outputs = [GENERATOR.uniform(0, 1, (4, 1, 8, 8)).astype(np.float32)]
    assert "above 0.5" in SegmentationMeasure(Reference(outputs)).notes[0]


def test_detection_against_labels() -> None:
    outputs = CASES[Task.DETECTION]
    corners = outputs[0][:, ::3, :4].astype(np.float64)
    truth = tuple(Boxes(c, np.zeros(len(c), np.int64)) for c in corners)
    measure = DetectionMeasure(Reference(outputs, Labels(boxes=truth)), BoxFormat.XYXY)
    assert measure.kind is AccuracyKind.AP
    assert 0.5 < measure.value(outputs) <= 1.0
    assert measure.nothing_to_lose() is None


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_cross_the_threshold_count_though_ap_hardly_sees_them(seed: int) -> None:
    """All scores a little lower, in the same order: AP is the same, detections of .25 and more are fewer."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([np.zeros((8, 20, 2)), np.ones((8, 20, 2))], axis=2) * 9
    boxes += 10.0 * np.arange(20)[None, :, None]
    scores = rng.uniform(0.1, 0.6, (8, 20, 1))
    outputs = [np.concatenate([boxes, scores], axis=2).astype(np.float32)]
    lower = [np.concatenate([boxes, scores - 0.05], axis=2).astype(np.float32)]
    measure = DetectionMeasure(Reference(outputs), BoxFormat.XYXY)
    assert measure.points_parted(outputs) < 0.5
    gone, sure = int(((scores >= 0.25) & (scores < 0.3)).sum()), int((scores >= 0.25).sum())
    assert gone
    assert measure.points_lost(lower) < 1
    # F1 loses half of the share that is gone, and counts half.
    assert measure.points_parted(lower) == pytest.approx(100 * gone / sure / 4, rel=0.5)


def test_a_detector_that_detects_nothing_is_refused() -> None:
    silent = CASES[Task.DETECTION][0].copy()
    silent[..., 4:] *= 0.1
    with pytest.raises(CalibrationError, match=r"the original detects nothing of confidence 0\.25"):
        DetectionMeasure(Reference([silent]))


def test_regression_tells_the_worst_channel_in_its_unit() -> None:
    wanted = GENERATOR.normal(size=(IMAGES, 2)) * [1.0, 100.0]
    outputs: Any = [wanted.astype(np.float32)]
    given = [outputs[0] + np.array([0.5, 1.0], np.float32)]
    measure = RegressionMeasure(Reference(outputs))
    assert not measure.counts_points
    assert measure.figure(given).value == pytest.approx(0.5, rel=1e-5)
    loss = measure.loss(given)
    assert loss.value == pytest.approx(0.25 / wanted[:, 0].var(), rel=1e-4)
    assert "worst in channel 0: root mean squared error 0.5" in measure.more(given)
    labelled = RegressionMeasure(Reference(outputs, Labels(values=wanted + np.array([0.5, 0.0]))))
    before, after = labelled.stages({"original": outputs, "ONNX": given})
    assert (before.value, after.value) == pytest.approx((0.0, 1.0), abs=1e-4)  # of channel 1, worst at last
    nearer = [np.stack([given[0][:, 0], outputs[0][:, 1]], axis=1)]
    assert labelled.loss(nearer).value < 0


@pytest.mark.parametrize("shape", [(), (1,), (3, 6, 6)])
def test_regression_of_any_shape(shape: tuple[int, ...]) -> None:
    outputs = scores(*shape)
    measure = RegressionMeasure(Reference(outputs))
    assert measure.figure([outputs[0] + 1]).value == pytest.approx(1.0, rel=1e-4)


def test_embeddings_keep_their_neighbours_when_turned_and_scaled() -> None:
    outputs = CASES[Task.EMBEDDING]
    turn, _ = np.linalg.qr(GENERATOR.normal(size=(16, 16)))
    measure = EmbeddingMeasure(Reference(outputs))
    turned = [(3 * outputs[0] @ turn).astype(np.float32)]
    assert measure.value(turned) == 1.0
    assert measure.more(outputs) == "mean cosine to the original's embeddings 1.0000"
    with pytest.raises(CalibrationError, match="at least 3 are needed"):
        EmbeddingMeasure(Reference([outputs[0][:2]]))


@pytest.mark.parametrize(
    ("task", "outputs"),
    [
        (Task.CLASSIFICATION, scores(3, 8, 8)),
        (Task.DETECTION, scores(10)),
        (Task.SEGMENTATION, scores(10)),
    ],
)
def test_outputs_of_another_task_are_refused(task: Task, outputs: Outputs) -> None:
    with pytest.raises(
        UsageError, match=rf"--task {task.value} was given, and the network's outputs are \(n, "
    ):
        measured(task, outputs)


@pytest.mark.parametrize(
    ("options", "drop", "said"),
    [
        (TaskOptions(task=Task.REGRESSION), 1.0, "--max-drop was given with --task regression"),
        (TaskOptions(task=Task.DETECTION, metric="m.py:f"), None, "--metric and --task detection were both"),
        (TaskOptions(boxes=BoxFormat.XYXY), None, "--boxes xyxy was given without --task detection"),
        (TaskOptions(metric="missing.py:f"), None, "names the file 'missing.py', which does not exist"),
    ],
)
def test_options_that_do_not_go_together(options: TaskOptions, drop: float | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_task(options, drop)


def by_metric(tmp_path: Path, body: str, outputs: Outputs) -> Measure:
    (tmp_path / "own.py").write_text(f"import numpy as np\ndef f(outputs, images, labels):\n    {body}\n")
    options = TaskOptions(metric=f"{tmp_path / 'own.py'}:f")
    return measure_for(options, outputs, ImageBatch(images=torch.zeros(IMAGES, 1, 8, 8), labels=None))


def test_a_metric_of_ones_own_with_and_without_an_interval(tmp_path: Path) -> None:
    outputs = [np.abs(o) for o in scores(4)]
    worse = [o / 2 for o in outputs]
    each = by_metric(tmp_path, "return 0.5 * np.tanh(outputs[0]).mean(axis=1)", outputs)
    figure = each.figure(worse)
    assert figure.low < figure.value < figure.high
    assert each.counts_points
    assert each.points_lost(worse) > 0
    whole = by_metric(tmp_path, "return 100 * float(outputs[0].mean())", outputs)
    figure = whole.figure(worse)
    assert figure.low == figure.value == figure.high
    assert not whole.counts_points
    loss = whole.loss(worse)
    assert loss is not None
    assert loss.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('no boxes')", r"raised ValueError \(no boxes\); it is called with the outputs"),
        ("return float('nan')", "returned nan for 12 images; accepted is a finite number"),
        ("return np.full(len(images), np.inf)", r"shape \(12,\) with values that are not finite"),
        ("return np.ones(3)", r"returned an array of shape \(3,\) for 12 images"),
        ("return None", "returned a value of type NoneType for 12 images"),
        ("return 'good'", "returned a value of type str for 12 images"),
        ("outputs[0][:] = 0", "read-only"),
        ("raise SystemExit(3)", r"raised SystemExit \(3\)"),
    ],
)
def test_a_metric_that_does_not_measure(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        by_metric(tmp_path, body, scores(4))


@pytest.mark.parametrize("task", CASES)
def test_points_lost_have_an_interval_and_a_confidence(task: Task) -> None:
    """Of accuracy, AP, mean IoU and retrieval; an error in the outputs' own unit has no points."""
    outputs = CASES[task]
    measure = measured(task, outputs)
    worse = [o + np.random.default_rng(4).normal(0, 0.3 * o.std(), o.shape).astype(o.dtype) for o in outputs]
    drop, same = (drop_of(measure, given, 1.0) for given in (worse, outputs))
    if not measure.counts_points:
        assert (drop.points, drop.paired) == (None, None)
        return
    assert drop.points is not None
    assert drop.paired is not None
    assert drop.paired.low_points - 1e-6 <= drop.points <= drop.paired.high_points + 1e-6
    assert drop.paired.images == IMAGES
    assert same.points == pytest.approx(0.0, abs=1e-9)
    assert same.paired is not None
    assert same.paired.confidence == pytest.approx(1 - 0.99**IMAGES)


def test_boxes_of_classes_that_the_model_has_not_are_refused() -> None:
    """Their AP would be 0 of the original and of anything else."""
    outputs = detector()
    boxes = DetectionMeasure(Reference(original=outputs))._truth
    for shift, fits in ((0, True), (1, True), (2, False), (7, False)):
        labelled = tuple(replace(b, classes=b.classes * 0 + 1 + shift) for b in boxes)
        given = Reference(original=outputs, labels=Labels(boxes=labelled))
        if fits:
            assert DetectionMeasure(given).kind is AccuracyKind.AP
        else:
            with pytest.raises(CalibrationError, match=rf"have a class {1 + shift}, but .* 3 classes"):
                DetectionMeasure(given)
