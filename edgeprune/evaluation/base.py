"""What a measure of quality is, and what it measures against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.artifacts.report import AnswerCounts
from edgeprune.errors import UsageError
from edgeprune.evaluation.overlays import Overlay
from edgeprune.parity import Outputs

FEWEST_IMAGES = 10
"""Fewer images, or fewer answers to lose, give no grade: they may all be of one class or one scene, which no
interval of independent draws reckons with."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one image: corners (k, 4) as x1 y1 x2 y2, classes (k,), and scores (k,) where detected.

    ``crowds`` (m, 4) are corners of what neither counts as an object nor, where detected, as an error, with
    their ``crowd_classes`` (m,).
    """

    corners: FloatArray
    classes: NDArray[np.int64]
    scores: FloatArray | None = None
    crowds: FloatArray = field(default_factory=lambda: np.zeros((0, 4)))
    crowd_classes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.corners)


@dataclass(frozen=True)
class Labels:
    """Truth for n images, as far as known: ``classes`` (n,), ``boxes`` of each image, class ``maps``
    (n, h, w) in which 255 counts nowhere, or ``values`` (n, ...) to be predicted."""

    classes: NDArray[np.int64] | None = None
    boxes: tuple[Boxes, ...] | None = None
    maps: NDArray[np.int64] | None = None
    values: FloatArray | None = None


@dataclass(frozen=True)
class Reference:
    """What outputs are held against: those of the original, and the labels; ``seed`` of the bootstrap.

    ``input_size``: (height, width) of the input, in whose pixels boxes of labels are.
    """

    original: Outputs
    labels: Labels = field(default_factory=Labels)
    seed: int = 0
    input_size: tuple[int, int] | None = None

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.original[0])


@dataclass(frozen=True)
class MeasureFigure:
    """A value with its 95% interval; ``unit`` says in words what it counts."""

    value: float
    low: float
    high: float
    unit: str
    higher_is_better: bool = False


class Measure(ABC):
    """Quality of outputs on a fixed set of images, against the original's outputs or labels.

    ``kind`` names it in reports; ``notes`` tell what was inferred or left out. ``counts_points``: whether
    :meth:`points_lost` is defined, so that ``--max-drop`` holds.
    """

    kind: AccuracyKind
    notes: tuple[str, ...] = ()
    counts_points: bool = True

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    @abstractmethod
    def figure(self, outputs: Outputs) -> MeasureFigure:
        """Quality of the outputs."""

    @abstractmethod
    def loss(self, outputs: Outputs) -> MeasureFigure | None:
        """Share of the original's quality that is lost, or a relative squared error; ``None``: it has none.

        The interval is that of the difference, image by image.
        """

    def points_lost(self, outputs: Outputs) -> float:
        """Hundredths of the measure lost against the original."""
        return 100 * (self.value(self.reference.original) - self.value(outputs))

    def points_parted(self, outputs: Outputs) -> float:
        """Points lost, or what a threshold makes of the outputs, in points of that weight, if it is more."""
        return self.points_lost(outputs)

    def value(self, outputs: Outputs) -> float:
        """Quality of the outputs without an interval."""
        return self.figure(outputs).value

    def answers(self, outputs: Outputs) -> AnswerCounts | None:  # noqa: ARG002
        """Answers lost and gained image by image; ``None`` where the outputs are no class scores."""
        return None

    def more(self, outputs: Outputs) -> str:  # noqa: ARG002
        """Further measures of the outputs in words; empty if there are none."""
        return ""

    def drawn_points(self, outputs: Outputs) -> FloatArray | None:  # noqa: ARG002
        """Points lost (1 + draws,), on all images and in draws of images; ``None`` where it has no draws."""
        return None

    def overlays(self, outputs: Outputs) -> tuple[Overlay, ...]:  # noqa: ARG002
        """What the outputs say of every image that can be drawn over it; empty where nothing can."""
        return ()

    def nothing_to_lose(self) -> str | None:
        """Why no loss can be told from these images; ``None`` if it can."""
        return None

    def in_words(self, outputs: Outputs, loss: MeasureFigure) -> tuple[str, str]:  # noqa: ARG002
        """The ``loss`` of these outputs in the measure's unit, and its interval, for a headline."""
        before = self.value(self.reference.original)
        value, low, high = (_points(before * share) for share in (loss.value, loss.low, loss.high))
        lost = f"loses {value} {'point' if value == '1' else 'points'} of {self.kind.value}"
        return (
            lost if loss.value > 0 else f"no measurable loss of {self.kind.value}",
            f"{low} to {high} points",
        )

    def stages(self, outputs: Mapping[str, Outputs]) -> tuple[AccuracyFigure, ...]:
        """Quality of every stage."""
        figures = {name: self.figure(of_stage) for name, of_stage in outputs.items()}
        return accuracy_figures(figures, self.reference.images)


def accuracy_figures(figures: Mapping[str, MeasureFigure], images: int) -> tuple[AccuracyFigure, ...]:
    """Figures of stages, by name, as a report has them."""
    return tuple(
        AccuracyFigure(stage=name, value=f.value, low=f.low, high=f.high, images=images)
        for name, f in figures.items()
    )


def _points(share: float) -> str:
    """Hundredths, without decimals from 10 on."""
    points = 100 * share
    return f"{round(points, 0 if abs(points) >= 10 else 1) + 0.0:g}"


def too_few(count: int, one: str, several: str, fewest: int) -> str:
    """Why no loss can be told from so few of what is counted."""
    found = f"there is 1 {one}" if count == 1 else f"there are {count:,} {several}"
    return f"{found}, and {fewest} are the fewest to judge by (--calibration, --held-out)"


def share_lost(unit: str, before: FloatArray, after: FloatArray) -> MeasureFigure | None:
    """Share of the original's quality that is lost; ``None`` where it has none.

    Args:
        before: quality of the original (1 + draws,): on all images, then in every draw of a bootstrap.
        after: that of another network in the same draws.
    """
    if not before[0] > 0:
        return None
    return drawn_figure((before - after) / before[0], f"share of the original's {unit}")


def drawn_figure(drawn: FloatArray, unit: str, higher_is_better: bool = False) -> MeasureFigure:
    """Figure of a value (1 + draws,) on all images, then in every draw of a bootstrap.

    Draws without a value are left out; a single value has no interval but itself.
    """
    value, draws = float(drawn[0]), drawn[1:][np.isfinite(drawn[1:])]
    low, high = map(float, np.quantile(draws, [0.025, 0.975])) if draws.size else (value, value)
    return MeasureFigure(value, min(low, value), max(high, value), unit, higher_is_better)


DRAWS = 1000
"""Draws of a bootstrap over images."""


def bootstrap_weights(images: int, seed: int) -> NDArray[np.float32]:
    """How often every image counts (1 + draws, n): each once, then drawn with replacement."""
    generator = np.random.default_rng([seed, 11])
    drawn = generator.multinomial(images, np.full(images, 1.0 / images), size=DRAWS)
    return np.concatenate([np.ones((1, images)), drawn]).astype(np.float32)


def shapes_in_words(outputs: Outputs) -> str:
    """``(n, 84, 8400)``, one for every output."""
    return " and ".join("(" + ", ".join(["n", *map(str, o.shape[1:])]) + ")" for o in outputs)


def misfit(task: str, outputs: Outputs, accepted: str, remedy: str) -> UsageError:
    """The error for outputs that a task cannot have."""
    return UsageError(
        f"--task {task} was given, and the network's outputs are {shapes_in_words(outputs)}; accepted there "
        f"{accepted}: {remedy}"
    )
