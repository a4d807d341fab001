"""Loss of the network as filters are removed: by least cost per MAC, and in random coalitions."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgeprune import parity
from edgeprune.artifacts.arrays import Advance, FloatArray, IndexArray
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import CoupledGroup, CouplingGraph
from edgeprune.artifacts.pruning import Ranking
from edgeprune.artifacts.quality import (
    AccuracyKind,
    PartialNetwork,
    RemovalCurve,
    RemovalCurves,
    RemovalPoint,
    RemovedShare,
    SizeCurve,
    SizePoint,
)
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.base import ScoringContext
from edgeprune.intervals import wilson_interval
from edgeprune.system import progress

POINTS = 12
"""Points of a removal curve, nothing removed included."""

_SHARES = tuple(s / 10 for s in range(11))
_COALITIONS = (16, 8)
_IMAGES = (128, 16)
SIZES_MACS = 1e12
"""Of all random coalitions of a ranking."""


def macs_of_one(coupling: CouplingGraph, group: CoupledGroup) -> int:
    """MACs saved by removing one player of a group while all others are present."""
    return coupling.total_macs() - coupling.total_macs(coupling.removed_mask(group.players[:1]))


def cost_per_mac(costs: FloatArray, coupling: CouplingGraph, groups: Sequence[CoupledGroup]) -> FloatArray:
    """Removal cost of each player divided by the MACs that it saves; infinite outside ``groups``."""
    prices = np.full(coupling.num_players, np.inf)
    for group in groups:
        players = list(group.players)
        prices[players] = costs[players] / max(1, macs_of_one(coupling, group))
    return prices


def removal_order(prices: FloatArray, groups: Sequence[CoupledGroup]) -> IndexArray:
    """Players in order of removal, lowest price first; the most expensive of each group stays."""
    leaving: list[int] = []
    for group in groups:
        players = np.sort(group.players)
        leaving.extend(players[np.argsort(prices[players], kind="stable")][:-1].tolist())
    going = np.array(sorted(leaving), dtype=np.int64)
    return going[np.argsort(prices[going], kind="stable")]


def removal_counts(
    order: IndexArray, coupling: CouplingGraph, axis: RemovedShare, points: int = POINTS
) -> tuple[int, ...]:
    """Numbers of filters removed at the points of a curve, evenly along its axis, from none to all."""
    if axis is RemovedShare.FILTERS:
        return tuple(sorted({round(c) for c in np.linspace(0, len(order), points).tolist()}))
    whole = coupling.total_macs()

    def saved(count: int) -> float:
        return whole - coupling.total_macs(coupling.removed_mask(order[:count].tolist()))

    steps = range(len(order) + 1)
    wanted = [saved(len(order)) * i / (points - 1) for i in range(points - 1)]
    return tuple(sorted({0, len(order), *(bisect.bisect_left(steps, w, key=saved) for w in wanted)}))


class RemovalJudge:
    """Evaluates removals on held-out images.

    Args:
        game: masks or reconstructs absent players, over the held-out images.
        labels: of these images; without them, quality is agreement with the original.
    """

    def __init__(
        self, game: MaskedGame, coupling: CouplingGraph, labels: IndexArray | None, axis: RemovedShare
    ) -> None:
        self._game = game
        self._coupling = coupling
        self._axis = axis
        original, self._base_values = game.outcome(np.ones(coupling.num_players, dtype=bool))
        self.kind = parity.accuracy_kind(original, labels is not None)
        self._original = original
        self._classes = None
        if self.kind is not AccuracyKind.RELATIVE_ERROR:
            self._classes = labels if labels is not None else original[0].argmax(1)

    def curve(
        self, criterion: str, order: IndexArray, players: int, *, advance: Advance = lambda _units: None
    ) -> RemovalCurve:
        """Quality and loss as the players of ``order`` are removed, out of ``players`` in total."""
        counts = removal_counts(order, self._coupling, self._axis)
        points, hits, losses = [], [], []
        for count in counts:
            present = np.ones(self._coupling.num_players, dtype=bool)
            present[order[:count]] = False
            hit, loss = self._outcome(present)
            points.append(self._point(count, players, ~present, hit, loss))
            losses.append(loss)
            if hit is not None:
                hits.append(hit.astype(np.float64))
            advance(1)
        of_macs = self._axis is RemovedShare.MACS
        shares = np.array([p.macs_removed_share if of_macs else p.removed_share for p in points])
        quality = area(shares, np.array(hits)) if hits else None
        loss_area = area(shares, np.array(losses))
        return RemovalCurve(
            criterion=criterion,
            quality_auc=None if quality is None else quality[0],
            quality_auc_standard_error=None if quality is None else quality[1],
            loss_auc=loss_area[0],
            loss_auc_standard_error=loss_area[1],
            points=tuple(points),
        )

    def judged(
        self, order: IndexArray, count: int, players: int, outputs: list[NDArray[np.float32]]
    ) -> RemovalPoint:
        """The curve point of a network without the first ``count`` of ``order``, from its outputs."""
        gone = np.zeros(self._coupling.num_players, dtype=bool)
        gone[order[:count]] = True
        return self._point(count, players, gone, self._hits(outputs), -self._game.values_of(outputs))

    def _hits(self, outputs: list[NDArray[np.float32]]) -> NDArray[np.bool_] | None:
        return None if self._classes is None else outputs[0].argmax(1) == self._classes

    def _outcome(self, present: NDArray[np.bool_]) -> tuple[NDArray[np.bool_] | None, FloatArray]:
        """Which images are classified correctly, and the loss of each."""
        if present.all():
            outputs, values = self._original, self._base_values
        else:
            outputs, values = self._game.outcome(present)
        return self._hits(outputs), -values

    def _point(
        self,
        count: int,
        players: int,
        gone: NDArray[np.bool_],
        hits: NDArray[np.bool_] | None,
        losses: FloatArray,
    ) -> RemovalPoint:
        macs = self._coupling.total_macs()
        return RemovalPoint(
            removed=count,
            removed_share=count / players,
            macs_removed_share=1.0 - self._coupling.total_macs(gone) / macs,
            **vars(without_a_part(hits, losses)),
        )


def without_a_part(hits: NDArray[np.bool_] | None, losses: FloatArray) -> PartialNetwork:
    """Quality and loss of a network from the answers and the loss of each image."""
    low, high = (None, None) if hits is None else wilson_interval(int(hits.sum()), len(hits))
    return PartialNetwork(
        quality=None if hits is None else float(hits.mean()),
        quality_low=low,
        quality_high=high,
        loss=float(losses.mean()),
        loss_standard_error=_error_of_mean(losses),
    )


def area(shares: FloatArray, curves: FloatArray) -> tuple[float, float]:
    """Mean height under curves (points, images) over ``shares`` (points,), and its standard error.

    The area is linear in the points, so each image has its own area, and their spread gives the error.
    """
    reach = shares[-1] - shares[0]
    if reach == 0.0:
        return float(curves[0].mean()), _error_of_mean(curves[0])
    widths = np.diff(shares)[:, None]
    per_image = ((curves[1:] + curves[:-1]) / 2 * widths).sum(0) / reach
    return float(per_image.mean()), _error_of_mean(per_image)


def _error_of_mean(values: FloatArray) -> float:
    """Standard error; NaN for a single image."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def size_effort(macs_per_image: int, images: int, most_macs: float = SIZES_MACS) -> tuple[int, int]:
    """Coalitions per size and images per coalition, within ``most_macs`` down to a minimum of each."""
    coalitions, most = _COALITIONS[0], min(images, _IMAGES[0])
    sizes = len(_SHARES)

    def work() -> float:
        return float(sizes * coalitions * most) * macs_per_image

    while work() > most_macs and most > _IMAGES[1]:
        most = max(_IMAGES[1], most // 2)
    while work() > most_macs and coalitions > _COALITIONS[1]:
        coalitions = max(_COALITIONS[1], coalitions // 2)
    return coalitions, most


def coalition_sizes(players: int) -> tuple[int, ...]:
    """Sizes at shares 0, 0.1 to 1, each once."""
    return tuple(sorted({round(s * players) for s in _SHARES}))


def passes_by_size(players: int, coalitions: int) -> int:
    """Number of coalitions that :func:`size_curve` evaluates."""
    return sum(1 if size in (0, players) else coalitions for size in coalition_sizes(players))


Scope = tuple[str, tuple[str, ...], Sequence[int]]
"""Name of a game, its groups, and the players that are drawn in it."""


def scope_of_network(groups: Sequence[CoupledGroup]) -> Scope:
    """All players of ``groups`` in one game."""
    return "network", tuple(g.name for g in groups), [p for g in groups for p in g.players]


def size_curves(
    context: ScoringContext, scopes: Sequence[Scope], *, seed: int, most_macs: float = SIZES_MACS
) -> tuple[SizeCurve, ...]:
    """v(S) by coalition size of each scope, absent channels masked; shows progress."""
    macs = context.coupling.total_macs() * len(scopes)
    coalitions, images = size_effort(macs, context.game.num_images, most_macs)
    game = context.game.on_images(images)
    total = sum(passes_by_size(len(members), coalitions) for _, _, members in scopes)
    rng = np.random.default_rng([seed, 2])
    with progress.task("valuing random coalitions", total) as advance:
        return tuple(
            size_curve(game, scope, inside, members, coalitions=coalitions, rng=rng, advance=advance)
            for scope, inside, members in scopes
        )


def removal_curves(
    context: ScoringContext,
    groups: Sequence[CoupledGroup],
    orders: Sequence[tuple[str, IndexArray]],
    held: ImageBatch,
    reference: list[Tensor],
) -> tuple[RemovalCurves, RemovalJudge]:
    """Curves of every named order on ``held``, and what judges where absent channels are reconstructed.

    Estimators of absent channels were fitted on the images of ``context``. Shows progress.
    """
    axis = RemovedShare.FILTERS if len(groups) == 1 else RemovedShare.MACS
    labels = None if held.labels is None else held.labels.numpy()
    filters = sum(len(g.players) for g in groups)
    judges = [
        RemovalJudge(game.on_batch(held, reference), context.coupling, labels, axis)
        for game in (context.recovery_game, context.game)
    ]
    with progress.task("removing filters on held-out images", 2 * POINTS * len(orders)) as advance:
        estimated, zeroed = (
            tuple(judge.curve(name, order, filters, advance=advance) for name, order in orders)
            for judge in judges
        )
    reconstructing, places = context.recovery_game.mask_points
    curves = RemovalCurves(
        quality_kind=judges[0].kind,
        axis=axis,
        images=len(held),
        filters=filters,
        reconstructing_points=reconstructing,
        mask_points=places,
        reconstructed=estimated,
        masked=zeroed,
    )
    return curves, judges[0]


def removal_orders(
    coupling: CouplingGraph, groups: Sequence[CoupledGroup], rankings: Sequence[Ranking]
) -> list[tuple[str, IndexArray]]:
    """Criterion and order of removal of every ranking."""
    return [
        (each.criterion, removal_order(cost_per_mac(each.removal_costs, coupling, groups), groups))
        for each in rankings
    ]


def size_curve(
    game: MaskedGame,
    scope: str,
    groups: tuple[str, ...],
    members: Sequence[int],
    *,
    coalitions: int,
    rng: np.random.Generator,
    advance: Advance = lambda _units: None,
) -> SizeCurve:
    """v(S) of random coalitions of ``members`` at every size, all other players present."""
    inside = np.array(members, dtype=np.int64)
    points = []
    for size in coalition_sizes(len(inside)):
        drawn = 1 if size in (0, len(inside)) else coalitions
        table = np.ones((drawn, game.num_players), dtype=bool)
        for row in table:
            row[rng.permutation(inside)[size:]] = False
        values = np.empty(drawn)
        for index in range(drawn):
            values[index] = game.values(table[index : index + 1]).mean()
            advance(1)
        points.append(
            SizePoint(
                present=size,
                share=size / len(inside),
                coalitions=drawn,
                mean=float(values.mean()),
                standard_deviation=float(values.std(ddof=1)) if drawn > 1 else 0.0,
                lowest=float(values.min()),
                highest=float(values.max()),
            )
        )
    return SizeCurve(
        scope=scope, groups=groups, players=len(inside), images=game.num_images, points=tuple(points)
    )
