"""Rows and places of a layered drawing: every box gets a row by depth, an order in it and an x coordinate.

The usual steps of layered graph drawing (Sugiyama, Tagawa, Toda 1981): depth by longest path, an empty slot
on every row that an edge crosses, fewer crossings by barycentres, then coordinates by least squares.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_ORDER_SWEEPS = 12
_PLACE_SWEEPS = 40
_HELD_WEIGHT = 1e5
_BOX_GAP = 26.0
_LINE_GAP = 13.0


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box to place, with its size in pixels."""

    name: str
    width: float
    height: float


@dataclass(kw_only=True)
class Slot:
    """A box, or where an edge crosses a row (``name`` is ``None``); ``x`` is its centre."""

    rank: int
    width: float = 0.0
    height: float = 0.0
    name: str | None = None
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)
    x: float = 0.0

    @property
    def is_box(self) -> bool:
        """Whether it holds a box."""
        return self.name is not None


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Slots by number, the rows from top to bottom, left to right, and the slots along every edge."""

    slots: tuple[Slot, ...]
    rows: tuple[tuple[int, ...], ...]
    chains: Mapping[tuple[str, str], tuple[int, ...]]


def rank_boxes(boxes: Sequence[Box], edges: Sequence[tuple[str, str]]) -> Ranked:
    """Place boxes, given in topological order, on rows; the same input gives the same drawing."""
    slots, chains = _make_slots(boxes, edges)
    rows = _fewest_crossings(slots, _first_order(slots))
    _place(slots, rows)
    _straighten(slots, rows, [c[1:-1] for c in chains.values() if len(c) > 3])
    return Ranked(slots=tuple(slots), rows=tuple(tuple(row) for row in rows), chains=chains)


def separation(left: Slot, right: Slot) -> float:
    """Least distance between the centres of two neighbours."""
    gap = _BOX_GAP if left.is_box and right.is_box else _LINE_GAP
    return (left.width + right.width) / 2 + gap


def _make_slots(
    boxes: Sequence[Box], edges: Sequence[tuple[str, str]]
) -> tuple[list[Slot], dict[tuple[str, str], tuple[int, ...]]]:
    rank = {box.name: 0 for box in boxes}
    ending: dict[str, list[str]] = {box.name: [] for box in boxes}
    for source, target in edges:
        ending[target].append(source)
    for box in boxes:
        rank[box.name] = max((rank[s] + 1 for s in ending[box.name]), default=0)
    slots = [Slot(rank=rank[b.name], width=b.width, height=b.height, name=b.name) for b in boxes]
    number = {box.name: index for index, box in enumerate(boxes)}
    chains = {}
    # Short edges first, so that edges past other boxes start to the right of them.
    for source, target in sorted(edges, key=lambda e: rank[e[1]] - rank[e[0]]):
        chain = [number[source]]
        for crossed in range(rank[source] + 1, rank[target]):
            slots.append(Slot(rank=crossed))
            chain.append(len(slots) - 1)
        chain.append(number[target])
        for upper, lower in itertools.pairwise(chain):
            slots[upper].below.append(lower)
            slots[lower].above.append(upper)
        chains[(source, target)] = tuple(chain)
    return slots, chains


def _first_order(slots: list[Slot]) -> list[list[int]]:
    """Rows in the order of a depth-first walk."""
    rows: list[list[int]] = [[] for _ in range(max((s.rank for s in slots), default=-1) + 1)]
    seen: set[int] = set()
    waiting = [i for i in reversed(range(len(slots))) if not slots[i].above]
    while waiting:
        index = waiting.pop()
        if index in seen:
            continue
        seen.add(index)
        rows[slots[index].rank].append(index)
        waiting.extend(reversed(slots[index].below))
    return rows


def _fewest_crossings(slots: list[Slot], rows: list[list[int]]) -> list[list[int]]:
    best, fewest = rows, _crossings(slots, rows)
    for sweep in range(_ORDER_SWEEPS):
        if not fewest:
            break
        rows = [list(row) for row in rows]
        down = sweep % 2 == 0
        for depth in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            place = {index: p for p, index in enumerate(rows[depth - 1 if down else depth + 1])}
            own = {index: float(p) for p, index in enumerate(rows[depth])}
            for index in rows[depth]:
                beside = slots[index].above if down else slots[index].below
                if beside:
                    own[index] = sum(place[n] for n in beside) / len(beside)
            rows[depth].sort(key=own.__getitem__)
        count = _crossings(slots, rows)
        if count < fewest:
            best, fewest = rows, count
    return best


def _crossings(slots: list[Slot], rows: list[list[int]]) -> int:
    total = 0
    for upper, lower in itertools.pairwise(rows):
        place = {index: p for p, index in enumerate(lower)}
        ends = [sorted(place[n] for n in slots[index].below) for index in upper]
        before: list[int] = []
        for mine in ends:
            total += sum(1 for end in mine for other in before if other > end)
            before.extend(mine)
    return total


def _spines(slots: list[Slot]) -> list[tuple[int, ...]]:
    """Runs of boxes along the paths with most boxes; each becomes one vertical line."""
    below: dict[int, int] = {}
    left = [0] * len(slots)
    for upper in sorted(range(len(slots)), key=lambda i: -slots[i].rank):
        left[upper] = max((left[n] for n in slots[upper].below), default=0) + slots[upper].is_box
        boxes = [n for n in slots[upper].below if slots[upper].is_box and slots[n].is_box]
        longest = max(boxes, key=left.__getitem__, default=None)
        if longest is not None and left[longest] + 1 == left[upper] and longest not in below.values():
            below[upper] = longest
    spines = []
    for start in sorted(set(below) - set(below.values())):
        run = [start]
        while run[-1] in below:
            run.append(below[run[-1]])
        spines.append(tuple(run))
    return spines


def _pulls(slots: list[Slot], spines: list[tuple[int, ...]]) -> list[list[tuple[int, float]]]:
    """Neighbours of every slot, and how strongly an edge aligns its ends vertically.

    Strongest along a spine, then inside long edges, then between other boxes.
    """
    on_spine = {pair for run in spines for pair in itertools.pairwise(run)}
    pulls: list[list[tuple[int, float]]] = [[] for _ in slots]
    for upper, own in enumerate(slots):
        for lower in own.below:
            boxes = own.is_box + slots[lower].is_box
            weight = 20.0 if (upper, lower) in on_spine else (1.0, 0.1, 0.4)[boxes]
            pulls[upper].append((lower, weight))
            pulls[lower].append((upper, weight))
    return pulls


def _place(slots: list[Slot], rows: list[list[int]]) -> None:
    """Coordinates by least squares of the edges' slants; then the spines become straight."""
    spines = _spines(slots)
    pulls = _pulls(slots, spines)
    _relax(slots, rows, pulls, {})
    straight = {i: sum(slots[n].x for n in run) / len(run) for run in spines for i in run}
    _relax(slots, rows, pulls, straight)


def _relax(
    slots: list[Slot], rows: list[list[int]], pulls: list[list[tuple[int, float]]], straight: dict[int, float]
) -> None:
    """Improve the rows in turn, each alone by isotonic regression; slots in ``straight`` keep their x."""
    for sweep in range(_PLACE_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted, weights = [], []
            for index in row:
                weight = sum(w for _, w in pulls[index])
                total = sum(w * slots[n].x for n, w in pulls[index])
                mean = total / weight if weight else slots[index].x
                wanted.append(straight.get(index, mean))
                weights.append(_HELD_WEIGHT if index in straight else weight or 1.0)
            apart = [separation(slots[a], slots[b]) for a, b in itertools.pairwise(row)]
            for index, x in zip(row, _spread(wanted, weights, apart), strict=True):
                slots[index].x = x


def _spread(wanted: list[float], weights: list[float], apart: list[float]) -> list[float]:
    """Positions closest to ``wanted`` with neighbours at least ``apart`` (pooling adjacent violators)."""
    offsets = [0.0]
    for gap in apart:
        offsets.append(offsets[-1] + gap)
    pools: list[tuple[float, float, int]] = []
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        mean, mass, count = want - offset, weight, 1
        while pools and pools[-1][0] > mean:
            other, other_mass, other_count = pools.pop()
            mean = (mean * mass + other * other_mass) / (mass + other_mass)
            mass, count = mass + other_mass, count + other_count
        pools.append((mean, mass, count))
    flat = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(flat, offsets, strict=True)]


def _straighten(slots: list[Slot], rows: list[list[int]], runs: list[tuple[int, ...]]) -> None:
    """Make every run one vertical line where its neighbours leave room."""
    place = {index: (row, p) for row in rows for p, index in enumerate(row)}
    for outward in (True, False):
        for run in sorted(runs, key=lambda r: slots[r[0]].x, reverse=outward):
            low, high = float("-inf"), float("inf")
            for index in run:
                row, p = place[index]
                if p > 0:
                    low = max(low, slots[row[p - 1]].x + separation(slots[row[p - 1]], slots[index]))
                if p + 1 < len(row):
                    high = min(high, slots[row[p + 1]].x - separation(slots[index], slots[row[p + 1]]))
            if low <= high:
                mean = sum(slots[i].x for i in run) / len(run)
                for index in run:
                    slots[index].x = min(max(mean, low), high)
