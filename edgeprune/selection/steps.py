"""The search behind ``select``: steps of groups by price and exchange, or all plans where they are few."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.selection.costs import Limit, Widths

MAX_PLANS = 20_000
"""Up to so many plans all of them are tried."""
_MAX_EXCHANGES = 100
_STEPS_AHEAD = 8
_STEPS_BACK_OF_ALL = 128
_LEAST_GAIN = 1e-9


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Steps of one group: its players in order of removal, the step size, and the minimum kept."""

    order: NDArray[np.int64]
    quantum: int
    least_players: int

    def next(self, gone: int) -> int:
        """Players in the next step: to the next lower multiple of the quantum; 0 if that leaves too few."""
        kept = len(self.order) - gone
        step = kept % self.quantum or self.quantum
        return step if kept - step >= max(self.least_players, 1) else 0

    def counts(self) -> list[int]:
        """Numbers of players that may be removed."""
        counts = [0]
        while step := self.next(counts[-1]):
            counts.append(counts[-1] + step)
        return counts


class Search:
    """State of the search: how many players of each group are removed, within limits or not yet."""

    def __init__(
        self, values: NDArray[np.float64], steps: Sequence[Steps], widths: Widths, limits: Sequence[Limit]
    ) -> None:
        self._steps = steps
        self._widths = widths
        self._most = [limit.most for limit in limits]
        self._lost = [np.concatenate([[0.0], np.cumsum(values[s.order])]) for s in steps]
        self._least = _LEAST_GAIN * float(np.abs(values).sum())
        self.gone = [0] * len(steps)

    def within(self) -> bool:
        """Whether every limit holds."""
        return all(over <= 0.0 for over in self._over())

    def run(self) -> None:
        """Find the plan that loses the least value within the limits; exact where there are few plans."""
        counts = [s.counts() for s in self._steps]
        if math.prod(len(c) for c in counts) <= MAX_PLANS:
            self._try_all(counts)
            return
        self._take_cheapest()
        if self.within():
            self._exchange()

    def _over(self) -> tuple[float, ...]:
        return tuple(t - m for t, m in zip(self._widths.totals(), self._most, strict=True))

    def _move(self, group: int, count: int) -> None:
        self._widths.remove(group, count)
        self.gone[group] += count

    def _lost_by(self, group: int, count: int) -> float:
        gone = self.gone[group]
        return float(self._lost[group][gone + count] - self._lost[group][gone])

    def _try_all(self, counts: list[list[int]]) -> None:
        """Try every plan; if none is within the limits, keep the one that removes most."""
        best, chosen = math.inf, tuple(c[-1] for c in counts)
        for plan in itertools.product(*counts):
            loss = sum(float(lost[gone]) for lost, gone in zip(self._lost, plan, strict=True))
            if loss >= best:
                continue
            self._go_to(plan)
            if self.within():
                best, chosen = loss, plan
        self._go_to(chosen)

    def _go_to(self, plan: Sequence[int]) -> None:
        for group, wanted in enumerate(plan):
            if wanted != self.gone[group]:
                self._move(group, wanted - self.gone[group])

    def _price(self, group: int) -> tuple[float, int] | None:
        """Value lost per saved share of the exceeded limits, and the number of players to remove.

        Of the next steps, as many as are cheapest together: with stepwise costs the first may save
        nothing. ``None`` where no step is left.
        """
        exceeded = [over > 0.0 for over in self._over()]
        best: tuple[float, int] | None = None
        count = 0
        for _ in range(_STEPS_AHEAD):
            step = self._steps[group].next(self.gone[group] + count)
            if step == 0:
                break
            count += step
            savings = self._widths.savings(group, count)
            saved = sum(s / m for s, m, over in zip(savings, self._most, exceeded, strict=True) if over)
            price = self._lost_by(group, count) / saved if saved > 0.0 else math.inf
            if best is None or price < best[0]:
                best = price, count
        return best

    def _take_cheapest(self) -> None:
        """Greedy removal, least price first, until the limits hold or no step is left."""
        heap = [(priced[0], g) for g in range(len(self._steps)) if (priced := self._price(g)) is not None]
        heapq.heapify(heap)
        while heap and not self.within():
            _, group = heapq.heappop(heap)
            priced = self._price(group)
            if priced is None:
                continue
            # Savings mostly shrink as other groups shrink, so prices mostly rise: push stale entries back.
            if heap and priced[0] > heap[0][0]:
                heapq.heappush(heap, (priced[0], group))
                continue
            self._move(group, priced[1])
            if (again := self._price(group)) is not None:
                heapq.heappush(heap, (again[0], group))

    def _exchange(self) -> None:
        """Local search from a plan within the limits: undo a step, in exchange for another if needed."""
        for _ in range(_MAX_EXCHANGES):
            if (move := self._best_move()) is None:
                return
            back, returned, ahead, step = move
            self._move(back, -returned)
            self._move(ahead, step)

    def _best_move(self) -> tuple[int, int, int, int] | None:
        """Group and players to restore, group and players to remove instead, that lower the loss most."""
        best, move = self._least, None
        steps_back = max(1, min(_STEPS_AHEAD, _STEPS_BACK_OF_ALL // len(self._steps)))
        for back, steps in enumerate(self._steps):
            for number in range(1, steps_back + 1):
                returned = min(number * steps.quantum, self.gone[back])
                gain = -self._lost_by(back, -returned)
                if returned < (number - 1) * steps.quantum + 1 or gain <= best:
                    continue
                self._widths.remove(back, -returned)
                over = self._over()
                if all(o <= 0.0 for o in over):
                    best, move = gain, (back, returned, back, 0)
                else:
                    for ahead in range(len(self._steps)):
                        count = 0 if ahead == back else self._enough(ahead, over)
                        net = gain - self._lost_by(ahead, count)
                        if count and net > best:
                            best, move = net, (back, returned, ahead, count)
                self._widths.remove(back, returned)
        return move

    def _enough(self, group: int, over: tuple[float, ...]) -> int:
        """Least number of further players of ``group`` whose savings cover the excess; 0 where none do."""
        count = 0
        for _ in range(_STEPS_AHEAD):
            step = self._steps[group].next(self.gone[group] + count)
            if step == 0:
                return 0
            count += step
            if all(s >= o for s, o in zip(self._widths.savings(group, count), over, strict=True)):
                return count
        return 0
