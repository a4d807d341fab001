"""Effect of channel errors on the outputs: second moments at every reconstructing mask point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.accelerator import exact
from edgeprune.artifacts.coupling import NO_PLAYER
from edgeprune.coupling.membership import Membership
from edgeprune.errors import CalibrationError
from edgeprune.pruning.masking import ChannelReconstruction
from edgeprune.shapley.quadratic import QuadraticPlace

Projection = Callable[
    [NDArray[np.bool_], NDArray[np.int64], np.random.Generator], Iterable[tuple[Tensor, Tensor]]
]
"""Coalition (n,), images (b,) -> a random projection of their outputs, summed, and the masks (b, n + 1).

One pair a part of the images, computed as it is asked for.
"""


class Sum(Enum):
    """One of the sums of :class:`SecondMoments`."""

    SQUARES = "squares"
    METRIC = "metric"
    EXACT = "exact"
    MODELLED = "modelled"


Contribution = tuple[Sum, int, NDArray[Any]]
"""What one step of a pass adds: to which sum, at which place."""


class SecondMoments:
    """The expected squared change of the outputs for every error at the mask points, over many coalitions.

    A random projection r of the outputs (independent, of variance 1) has E[(r . dy)^2] = |dy|^2, so one
    backward pass with r gives an unbiased estimate of the squared change dy = J e of an error e, to first
    order. Per place that is tr(M E[e e']) with M = E[sum over positions of g g'], as if errors of positions
    were independent of each other and of g. They are not, so each place's M is scaled by the ratio of the
    exact square of the whole image to that of the model, over the observed channels.
    """

    def __init__(
        self,
        points: list[ChannelReconstruction],
        others: list[Membership],
        num_players: int,
        project: Projection,
    ) -> None:
        self._points = points
        self._others = others
        self._num_players = num_players
        self._project = project
        self._metric = [torch.zeros_like(p.covariance) for p in points]
        self._exact = [np.zeros(len(p.players)) for p in points]
        self._modelled = [np.zeros(len(p.players)) for p in points]
        self._squares = np.zeros(num_players)
        self._images = 0

    def add(self, coalition: NDArray[np.bool_], images: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Accumulate one backward pass at ``coalition`` (n,) over ``images`` (b,)."""
        powers = [_Powers(len(p.players)) for p in self._points]
        with self._watching() as seen, torch.enable_grad():
            for total, masks in self._project(coalition, images, rng):
                self._add_part(total, masks, seen, powers)
                seen.clear()
        for place, power in enumerate(powers):
            self._take(Sum.MODELLED, place, power.modelled())
        self._images += len(images)

    def replay(self, log: Iterable[Contribution], images: int) -> None:
        """Accumulate what :class:`RecordedMoments` recorded of one pass over a number of images."""
        for to, place, array in log:
            self._take(to, place, array)
        self._images += images

    def _take(self, to: Sum, place: int, array: Any) -> None:
        """Add to one of the sums; an array from another device or process is brought to it."""
        if to is Sum.METRIC:
            if isinstance(array, np.ndarray):  # of another process, which may not be written to
                array = torch.from_numpy(np.require(array, requirements=["W"]))
            self._metric[place] += exact(array).to(self._metric[place].device)
        elif to is Sum.SQUARES:
            self._squares += array
        else:
            sums = self._exact if to is Sum.EXACT else self._modelled
            sums[place] += array

    def _add_part(self, total: Tensor, masks: Tensor, seen: dict[int, Tensor], powers: list[_Powers]) -> None:
        passed = [seen[place] for place in range(len(self._points))]
        gradients = torch.autograd.grad(total, (masks, *passed))
        self._take(Sum.SQUARES, 0, exact(gradients[0][:, :-1]).square().sum(0).cpu().numpy())
        for place, gradient in enumerate(gradients[1:]):
            self._gather(place, gradient, powers[place])

    def state(self) -> dict[str, NDArray[Any]]:
        """All accumulated sums, for :meth:`restore`."""
        arrays: dict[str, NDArray[Any]] = {"squares": self._squares, "images": np.array(self._images)}
        for place, metric in enumerate(self._metric):
            arrays[f"metric-{place}"] = metric.cpu().numpy()
            arrays[f"exact-{place}"], arrays[f"modelled-{place}"] = self._exact[place], self._modelled[place]
        return arrays

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a result of :meth:`state`."""
        self._squares, self._images = state["squares"].copy(), int(state["images"])
        for place in range(len(self._points)):
            metric = torch.from_numpy(state[f"metric-{place}"].copy())
            self._metric[place] = metric.to(self._points[place].covariance.device)
            self._exact[place] = state[f"exact-{place}"].copy()
            self._modelled[place] = state[f"modelled-{place}"].copy()

    def places(self) -> tuple[QuadraticPlace, ...]:
        """The quadratic model of every place, in the order of the mask points."""
        return tuple(self._place(place) for place in range(len(self._points)))

    def _place(self, place: int) -> QuadraticPlace:
        point, players = self._points[place], self._points[place].players.cpu().numpy()
        ratios = _ratios(self._exact[place], self._modelled[place])
        metric = self._metric[place].cpu().numpy() * np.sqrt(np.outer(ratios, ratios)) / max(1, self._images)
        return QuadraticPlace(
            covariance=point.covariance.cpu().numpy(),
            metric=metric,
            players=np.where(players == self._num_players, NO_PLAYER, players),
            ridge=point.ridge,
        )

    def check_finite(self) -> None:
        """Check what was accumulated.

        Raises:
            CalibrationError: gradients were NaN or infinite.
        """
        sums = (self._squares, *(metric.cpu().numpy() for metric in self._metric), *self._exact)
        if not all(np.isfinite(each).all() for each in sums):
            raise CalibrationError(
                "gradients of the model's outputs are NaN or infinite on the calibration images, so channels "
                "cannot be ranked by them; accepted is a trained model whose values single precision holds: "
                "check the weights and the preprocessing (--mean, --std), or rank by --criterion l1"
            )

    def masked_players(self) -> NDArray[np.bool_]:
        """Players (n,) that enter a consumer unreconstructed, so that ``places`` do not cover them fully."""
        masked = np.zeros(self._num_players + 1, dtype=bool)
        for point in self._others:
            masked[point.players.cpu().numpy()] = True
        return masked[:-1]

    def squares(self) -> NDArray[np.float64]:
        """Expected squared change (n,) of the outputs with each player's own membership, others as drawn."""
        return self._squares / max(1, self._images)

    @contextmanager
    def _watching(self) -> Iterator[dict[int, Tensor]]:
        """Output of every mask point, by its place, during one forward pass."""
        seen: dict[int, Tensor] = {}

        def keep(place: int) -> Callable[[torch.nn.Module, tuple[Tensor, ...], Tensor], None]:
            def hook(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
                seen[place] = output

            return hook

        hooks = [p.register_forward_hook(keep(i)) for i, p in enumerate(self._points)]
        for point in self._points:
            point.keeps_own_part = True
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()
            for point in self._points:
                point.keeps_own_part, point.own_part = False, torch.empty(0)

    def _gather(self, place: int, gradient: Tensor, powers: _Powers) -> None:
        point = self._points[place]
        error, point.own_part = point.own_part, torch.empty(0)
        along = point.by_channel(gradient)
        flat = along.transpose(0, 1).flatten(1)
        self._take(Sum.METRIC, place, flat @ flat.T)
        rows = (along * error).sum(2)
        per_image = rows.reshape(point.batch.outer, -1, point.batch.inner, rows.shape[1]).sum((0, 2))
        self._take(Sum.EXACT, place, exact(per_image).square().sum(0).cpu().numpy())
        powers.add(along, error)


class RecordedMoments(SecondMoments):
    """Records in ``log`` what each step would add, for :meth:`SecondMoments.replay` elsewhere."""

    def __init__(
        self,
        points: list[ChannelReconstruction],
        others: list[Membership],
        num_players: int,
        project: Projection,
    ) -> None:
        super().__init__(points, others, num_players, project)
        self.log: list[Contribution] = []

    def _take(self, to: Sum, place: int, array: Any) -> None:
        self.log.append((to, place, np.asarray(array.cpu() if isinstance(array, Tensor) else array)))


class _Powers:
    """Power of the gradients and of the errors of one place, over a batch in parts."""

    def __init__(self, channels: int) -> None:
        self._gradients = torch.zeros(channels, dtype=torch.float64)
        self._errors = torch.zeros(channels, dtype=torch.float64)
        self._positions = 0

    def add(self, gradients: Tensor, errors: Tensor) -> None:
        """Add a part, both (rows, channels, positions)."""
        self._gradients += exact(gradients.square().sum((0, 2))).cpu()
        self._errors += exact(errors.square().sum((0, 2))).cpu()
        self._positions += errors.shape[0] * errors.shape[2]

    def modelled(self) -> NDArray[np.float64]:
        """Squares (c,) as if errors were independent of gradients."""
        return np.asarray((self._gradients * self._errors / max(1, self._positions)).numpy())


def _ratios(exact: NDArray[np.float64], modelled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exact over modelled square of every channel (c,); 1 where the modelled one is 0."""
    return np.divide(exact, modelled, out=np.ones(len(exact)), where=modelled > 0.0)
