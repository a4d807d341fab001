"""Which measure a task has, and which options go together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgeprune.artifacts.calibration import CalibrationSet, ImageBatch
from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.model import taken_apart
from edgeprune.errors import UsageError
from edgeprune.evaluation.base import Measure, Reference
from edgeprune.evaluation.by_outputs import ClassificationMeasure, OutputMeasure
from edgeprune.evaluation.custom import CustomMeasure, find_metric
from edgeprune.evaluation.detection import DetectionMeasure
from edgeprune.evaluation.embedding import EmbeddingMeasure
from edgeprune.evaluation.labels import labels_of
from edgeprune.evaluation.regression import RegressionMeasure
from edgeprune.evaluation.segmentation import SegmentationMeasure
from edgeprune.options.subjects import TaskOptions
from edgeprune.parity import Outputs

MEASURES: dict[Task, Callable[[Reference], Measure]] = {
    Task.AUTO: OutputMeasure,
    Task.CLASSIFICATION: ClassificationMeasure,
    Task.DETECTION: DetectionMeasure,
    Task.SEGMENTATION: SegmentationMeasure,
    Task.REGRESSION: RegressionMeasure,
    Task.EMBEDDING: EmbeddingMeasure,
}
"""Measure of every task; detection has a reading of its boxes besides."""


def check_task(options: TaskOptions, max_drop_points: float | None) -> None:
    """Check before any work that the options of the task go together, and import the metric.

    Raises:
        UsageError: says which do not.
    """
    if options.metric is not None and options.task is not Task.AUTO:
        raise UsageError(
            f"--metric and --task {options.task.value} were both given; accepted is one way of measuring"
        )
    if options.boxes is not None and options.task is not Task.DETECTION:
        raise UsageError(
            f"--boxes {options.boxes.value} was given without --task detection, which alone has boxes; add "
            "that, or leave it out"
        )
    if max_drop_points is not None and options.task is Task.REGRESSION:
        raise UsageError(
            "--max-drop was given with --task regression, whose errors are in the outputs' own unit, so that "
            "there are no percentage points to lose; leave it out, or give --metric FILE.py:FUNCTION that "
            "returns a share in 0..1, of which higher is better"
        )
    if options.metric is not None:
        find_metric(options.metric)


def measure_for(options: TaskOptions, original: Outputs, held_out: ImageBatch, seed: int = 0) -> Measure:
    """The measure of the task, of outputs for images against those of the original or their labels.

    Args:
        options: the task, or the user's metric.
        original: outputs of the original for the images.
        held_out: the images, and what is known of them.
        seed: of the bootstrap over images.

    Raises:
        UsageError: the outputs are not those of such a task, or the metric fails.
        CalibrationError: the images have nothing to judge by.
    """
    height, width = held_out.images.shape[-2:]
    size = None if held_out.joins else (height, width)
    reference = Reference(original, labels_of(held_out, original), seed, size)
    if options.metric is not None:
        inputs = taken_apart(held_out.images, held_out.joins) if held_out.joins else (held_out.images,)
        return CustomMeasure(reference, options.metric, tuple(each.numpy() for each in inputs))
    if options.task is Task.DETECTION:
        return DetectionMeasure(reference, options.boxes)
    return MEASURES[options.task](reference)


def by_task(options: TaskOptions) -> bool:
    """Whether a task or a metric was named."""
    return options.task is not Task.AUTO or options.metric is not None


def measures_classes(options: TaskOptions) -> bool:
    """Whether labels, which are classes of whole images, can be used to judge."""
    return options.task in (Task.AUTO, Task.CLASSIFICATION)


def check_drop(measure: Measure, max_drop_points: float | None, accepted: str) -> None:
    """Check that the measure has points to lose, where their loss is limited.

    Raises:
        UsageError: it has none; tells what is ``accepted``.
    """
    if max_drop_points is None or measure.counts_points:
        return
    if isinstance(measure, CustomMeasure):
        raise UsageError(
            f"--max-drop was given with a metric that is {measure.value(measure.reference.original):.4g} for "
            "the original; accepted is one in 0..1 for every image, of which points are hundredths: return a "
            "share, or leave --max-drop out"
        )
    raise UsageError(f"--max-drop was given for a model whose outputs are no class scores; {accepted}")


def for_task(calibration: CalibrationSet, options: TaskOptions) -> tuple[CalibrationSet, tuple[str, ...]]:
    """The images as the task takes them, and a note on labels that do not count.

    Where outputs are no class scores, the images go without classes of whole images.
    """
    if measures_classes(options):
        return calibration, ()
    fitting, held = (
        replace(b, labels=None, class_scores=False) for b in (calibration.fitting, calibration.held_out)
    )
    note = (
        f"labels are classes of whole images, which --task {options.task.value} does not use: the original's "
        "own outputs are the reference"
    )
    return replace(calibration, fitting=fitting, held_out=held), (note,) if calibration.labelled else ()
