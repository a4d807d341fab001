"""Data types that ranking, selection and recovery produce."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Aggregate(Enum):
    """How per-image marginals become one value per player."""

    MEAN = "mean"
    RMS = "rms"
    MEAN_PLUS_2STD = "mean+2std"


class RankingMethod(Enum):
    """Which estimator gave a group's values."""

    MULTILINEAR = "multilinear"
    EXACT = "exact"


@dataclass(frozen=True, kw_only=True)
class RankingOrigin:
    """The result of ``edgeprune rank`` that a ranking was taken from, and which of its criteria."""

    path: str
    criterion: str


@dataclass(frozen=True, kw_only=True)
class MultilinearEstimate:
    """How values were drawn: the estimator of each group by name, the aggregate over images, and the range of
    inclusion probabilities of coalitions."""

    group_methods: dict[str, RankingMethod]
    aggregate: Aggregate
    q_low: float
    q_high: float


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Importance of every player (n_players,), higher is more important, by one criterion.

    ``removal_costs`` (n_players,) is what selection adds up over the players that go, in this order within
    their group and in one unit for all groups; ``standard_errors`` (n_players,) are those of ``values``, NaN
    where the criterion has none. ``evaluations`` counts v(S) of one batch of images, a forward and backward
    pass as one; 0 for criteria that only look at weights. ``choice`` says in words what was computed,
    ``notes`` what was not as asked, ``loss`` what v(S) is minus of. ``estimate`` is that of ``hybrid``.
    ``rounds``: shares of the MACs after whose removal and recovery the costs of what was left were estimated
    anew. ``origin`` says where a ranking that was given is from.
    """

    criterion: str
    values: NDArray[np.float64]
    removal_costs: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    evaluations: int
    images: int
    duration_s: float
    choice: str
    loss: str = ""
    notes: tuple[str, ...] = ()
    estimate: MultilinearEstimate | None = None
    rounds: tuple[float, ...] = ()
    origin: RankingOrigin | None = None


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """What happens to one coupled group: which of its players go."""

    group: str
    players: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class PruningPlan:
    """Players to remove (ascending indices), and what that costs and saves in MACs per image."""

    removed: tuple[int, ...]
    groups: tuple[GroupPlan, ...]
    ratio_asked: float
    macs_before: int
    macs_after: int
    width_quantum: int
    notes: tuple[str, ...] = ()

    @property
    def macs_removed_share(self) -> float:
        """Share of the original MACs that goes."""
        return 1.0 - self.macs_after / self.macs_before


@dataclass(frozen=True, kw_only=True)
class RecoveryStep:
    """What least squares did to one consumer: relative squared error of its output before and after.

    Both are on images that nothing was fitted to. ``behind_activation``: of what an activation leaves of
    that output. ``changed``: false where nothing was better than the layer as it was; else ``ridge`` is the
    strength that was taken, ``None`` where channels were merged and nothing solved for, and ``rounds`` how
    often it was solved behind the activation.
    """

    layer: str
    error_before: float
    error_after: float
    rows: int
    repaired_residual: bool
    behind_activation: bool = False
    changed: bool = True
    ridge: float | None = None
    rounds: int = 0


class DecisionMeasure(Enum):
    """What two networks were told apart by; less is better."""

    CHANGED_ANSWERS = "share of changed answers"
    DIVERGENCE = "divergence from the original"
    RELATIVE_ERROR = "relative squared error"


@dataclass(frozen=True, kw_only=True)
class NetworkDecision:
    """Whether a network went on after a step, by the original's outputs on images that nothing was fitted to.

    ``difference`` is the mean over images of after minus before, below zero where the step helped, and
    ``standard_error`` its error by the draw of images.
    """

    step: str
    measure: DecisionMeasure
    taken: bool
    beyond_chance: bool
    before: float
    after: float
    difference: float
    standard_error: float
    images: int


@dataclass(frozen=True, kw_only=True)
class RecoveryReport:
    """Every step of the closed-form recovery, in order, on ``images`` with ``deciding_images`` to decide."""

    steps: tuple[RecoveryStep, ...]
    images: int
    deciding_images: int
    duration_s: float
    notes: tuple[str, ...] = ()
    decision: NetworkDecision | None = None


@dataclass(frozen=True, kw_only=True)
class DistillationReport:
    """What training did: the divergence from the original on images that it never saw, before and after,
    at a temperature of 2.

    ``kept_step`` is the step whose network was best there and was kept; 0: none was better than the start
    by more than chance.
    ``feature`` names the activations that were learned besides the answers; ``None`` where what the last
    layer reads are not channels. ``learning_rate``: of those that were tried, the one that came nearest.
    ``decision`` compares the network before and after as a whole.
    """

    steps: int
    kept_step: int
    images: int
    validation_images: int
    divergence_before: float
    divergence_after: float
    duration_s: float
    feature: str | None = None
    learning_rate: float | None = None
    decision: NetworkDecision | None = None


@dataclass(frozen=True, kw_only=True)
class ChannelImportance:
    """One channel in the order of its group's values, place 1 the highest; ``standard_error`` where known."""

    place: int
    value: float
    standard_error: float | None
    removed: bool


@dataclass(frozen=True, kw_only=True)
class GroupImportance:
    """Values of a coupled group's channels; of many ``shown`` has some, evenly over the places."""

    group: str
    layers: tuple[str, ...]
    channels: int
    removed: int
    shown: tuple[ChannelImportance, ...]
