"""The measures without a task: top-1 accuracy or agreement of class scores, relative error of all else."""

from __future__ import annotations

from edgeprune import parity
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.report import AnswerCounts
from edgeprune.evaluation.base import FEWEST_IMAGES, Measure, MeasureFigure, Reference, misfit, too_few
from edgeprune.outputs.units import units_of
from edgeprune.parity import Outputs


class OutputMeasure(Measure):
    """Accuracy with labels, agreement without, relative squared error where there are no class scores."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(reference)
        self.kind = parity.accuracy_kind(reference.original, reference.labels.classes is not None)
        self.counts_points = self.kind is not AccuracyKind.RELATIVE_ERROR
        self._units = () if self.counts_points else tuple(map(units_of, reference.original))
        if reference.labels.classes is not None and not self.counts_points:
            count = len(reference.original)
            shapes = (
                "several outputs" if count > 1 else f"an output of {reference.original[0].ndim} dimensions"
            )
            self.notes = (
                f"labels were not used: the model has {shapes}, and none is known to be its class scores, so "
                "errors of outputs are judged; let it return the scores alone, or give --metric",
            )

    def figure(self, outputs: Outputs) -> MeasureFigure:
        """Accuracy, agreement or error of the outputs."""
        accuracy = parity.accuracy(
            "",
            outputs,
            original=self.reference.original,
            labels=self.reference.labels.classes,
            kind=self.kind,
            units=self._units,
        )
        return MeasureFigure(accuracy.value, accuracy.low, accuracy.high, self.kind.value, self.counts_points)

    def loss(self, outputs: Outputs) -> MeasureFigure | None:
        """The error itself where it is one; answers are counted by :meth:`answers` instead."""
        return self.figure(outputs) if not self.counts_points else None

    def in_words(self, outputs: Outputs, loss: MeasureFigure) -> tuple[str, str]:  # noqa: ARG002
        """The relative squared error, and its interval."""
        return (
            f"relative squared error of {loss.value:.2g} against the original",
            f"{loss.low:.2g} to {loss.high:.2g}",
        )

    def points_lost(self, outputs: Outputs) -> float:
        """Percentage points lost, or the relative error in percent."""
        if not self.counts_points:
            return 100 * self.figure(outputs).value
        return parity.points_lost(self.reference.original, outputs, self.reference.labels.classes)

    def answers(self, outputs: Outputs) -> AnswerCounts | None:
        """Answers lost and gained; ``None`` where the outputs are no class scores."""
        return parity.answer_counts(self.reference.original, outputs, self.reference.labels.classes)

    def nothing_to_lose(self) -> str | None:
        """Why answers cannot be counted: there are too few, or the original has too few of them right."""
        counts = self.answers(self.reference.original)
        if counts is None:
            return None
        if counts.images < FEWEST_IMAGES:
            return too_few(counts.images, "held-out image", "held-out images", FEWEST_IMAGES)
        classes = self.reference.original[0].shape[1]
        guessed = counts.kept_from * classes <= counts.images
        if counts.kept_from >= FEWEST_IMAGES and not guessed:
            return None
        chance = f", no more than by guessing among {classes:,} classes" if guessed else ""
        return (
            f"the original itself is right on only {counts.kept_from:,} of {counts.images:,} held-out images"
            f"{chance} (check the labels and the preprocessing: --card, --mean, --std)"
        )


class ClassificationMeasure(OutputMeasure):
    """Accuracy or agreement of outputs that have to be class scores."""

    def __init__(self, reference: Reference) -> None:
        if not parity.is_classifier(reference.original):
            raise misfit(
                "classification",
                reference.original,
                "is one output of class scores, (n, classes)",
                "leave --task out, or name what the network is for",
            )
        super().__init__(reference)
