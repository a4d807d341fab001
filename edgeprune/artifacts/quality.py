"""Quality of networks: what it is measured by, figures of stages, and curves over coalitions and cuts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class AccuracyKind(Enum):
    """What the quality figures compare with."""

    TOP1 = "top-1 accuracy"
    AGREEMENT = "top-1 agreement with the original"
    RELATIVE_ERROR = "relative squared error against the original"
    AP = "AP (IoU .5 to .95)"
    AP_AGREEMENT = "AP against the original's own detections"
    MEAN_IOU = "mean IoU"
    MEAN_IOU_AGREEMENT = "mean IoU against the original's own segmentation"
    ABSOLUTE_ERROR = "mean absolute error of the worst output channel"
    ABSOLUTE_DEVIATION = "mean absolute error against the original, worst output channel"
    RETRIEVAL = "nearest neighbours shared with the original"
    METRIC = "the given metric"

    @property
    def is_error(self) -> bool:
        """Whether lower is better, so that there are no percentage points to lose."""
        return self in (
            AccuracyKind.RELATIVE_ERROR,
            AccuracyKind.ABSOLUTE_ERROR,
            AccuracyKind.ABSOLUTE_DEVIATION,
        )

    @property
    def is_share(self) -> bool:
        """Whether it is between 0 and 1, and shown in percent."""
        return not self.is_error and self is not AccuracyKind.METRIC


@dataclass(frozen=True, kw_only=True)
class AccuracyFigure:
    """Quality of one stage's model on the held-out images with its 95% interval, in the unit of the measure.

    Shares are in [0, 1], errors and a given metric as they are.
    """

    stage: str
    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True, kw_only=True)
class SizePoint:
    """v(S) over random coalitions of one size; ``standard_deviation`` and range are those over coalitions."""

    present: int
    share: float
    coalitions: int
    mean: float
    standard_deviation: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class SizeCurve:
    """Coalition size against value; everyone outside ``groups`` is present all the time."""

    scope: str
    groups: tuple[str, ...]
    players: int
    images: int
    points: tuple[SizePoint, ...]


class AbsentChannels(Enum):
    """What takes the place of removed channels; the first comes nearer to what is delivered."""

    RECONSTRUCTED = "reconstructed"
    MASKED = "masked"


@dataclass(frozen=True, kw_only=True)
class PartialNetwork:
    """Quality and loss on the held-out images of a network without a part.

    A class with these fields names it before the base that is to come first in JSON.
    """

    quality: float | None
    quality_low: float | None
    quality_high: float | None
    loss: float
    loss_standard_error: float


@dataclass(frozen=True, kw_only=True)
class RemovedFilters:
    """How much is absent."""

    removed: int
    removed_share: float
    macs_removed_share: float


@dataclass(frozen=True, kw_only=True)
class RemovalPoint(PartialNetwork, RemovedFilters):
    """Quality and loss on the held-out images with so many filters absent.

    ``quality`` (in [0, 1]) is ``None`` where the outputs are no class scores; its interval is 95% (Wilson).
    """


@dataclass(frozen=True, kw_only=True)
class RemovalCurve:
    """Filters go in the order of one criterion's removal costs per MAC saved.

    Areas under the curves are means over the removed share (trapezoids over its range), with standard
    errors over images.
    """

    criterion: str
    quality_auc: float | None
    quality_auc_standard_error: float | None
    loss_auc: float
    loss_auc_standard_error: float
    points: tuple[RemovalPoint, ...]


@dataclass(frozen=True, kw_only=True)
class RecoveredNetworks:
    """Networks pruned in one criterion's order and recovered on the fitting images, one a cut asked for."""

    criterion: str
    points: tuple[RemovalPoint, ...]


class RemovedShare(Enum):
    """What the horizontal axis of removal curves is a share of."""

    FILTERS = "filters"
    MACS = "MACs"


@dataclass(frozen=True, kw_only=True)
class RemovalCurves:
    """What is lost while filters go, for all criteria in the same order and on the same images.

    ``reconstructed``: absent channels are their best linear estimate from the present ones, by statistics of
    the fitting images, which stands for the recovered network; ``masked``: they are zero, as in the pruned
    network before recovery. ``recovered``: networks at the shares of ``RankSettings.recover_at``, empty
    where none was asked for. ``reconstructing_points`` of the ``mask_points`` do so, the others mask in both.
    ``axis``: filters where a single group loses them, else MACs, since filters of different groups differ.
    """

    quality_kind: AccuracyKind
    axis: RemovedShare
    images: int
    filters: int
    reconstructing_points: int
    mask_points: int
    reconstructed: tuple[RemovalCurve, ...]
    masked: tuple[RemovalCurve, ...]
    recovered: tuple[RecoveredNetworks, ...] = ()

    def curves(self, absent: AbsentChannels) -> tuple[RemovalCurve, ...]:
        """The curves of one treatment."""
        return self.reconstructed if absent is AbsentChannels.RECONSTRUCTED else self.masked


@dataclass(frozen=True, kw_only=True)
class RankingCurves:
    """What the values of a ranking stand for: v(S) by coalition size, and what is lost while filters go.

    ``loss`` says what v(S) is minus of; ``layers`` are those that were ranked, empty where all were.
    """

    loss: str
    layers: tuple[str, ...] = ()
    coalition_sizes: tuple[SizeCurve, ...]
    removal: RemovalCurves
