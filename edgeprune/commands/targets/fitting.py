"""Tables of a calibration from times of the grid: non-negative least squares of relative errors.

Source of the method: Lawson and Hanson 1974, "Solving Least Squares Problems", chapter 23, here by coordinate
descent; outliers count less (Huber 1964).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.commands.targets.grid_files import block_of, is_joint
from edgeprune.profiling.costs import TableKey, features, table_key
from edgeprune.profiling.kinds import OpKind, OpWork
from edgeprune.targets import KindTable

_BY_OPERATOR = frozenset({OpKind.FUNCTION, OpKind.MEMORY, OpKind.BORDER, OpKind.POOL, OpKind.NORMALIZATION})
"""Kinds whose operators have little in common."""
_ARITHMETIC = frozenset(
    kind.value for kind in (OpKind.CONV, OpKind.POINTWISE, OpKind.DEPTHWISE, OpKind.GROUPED, OpKind.GEMM)
)
_KEY = ("kind", "op_type", "integer", "blocked")
_RIDGE, _RIDGE_POOLED = 3e-3, 1e-5
_SETTLED = 1e-5
_SWEEPS, _REWEIGHTED, _OUTLIER = 200, 3, 0.15
_FOLDS = 5
_EFFICIENCIES = np.linspace(0.0, 1.0, 21)
_WEIGHT_POWER = 0.25
"""Of a node's time: the relative error of a long one does more to a network than that of a short one."""

Array = NDArray[np.float64]
_Row = dict[tuple[TableKey, str], float]


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """Work and CPU milliseconds of one network; ``shares`` of its nodes by name, if known."""

    name: str
    operations: tuple[OpWork, ...]
    time_ms: float
    shares: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the features of a node depend on."""

    quantum: int
    far_from_bytes: float


@dataclass(frozen=True, kw_only=True)
class FittedTables:
    """Tables for one thread, of so many ``nodes``; ``held_out``: measured over predicted times of blocks."""

    kinds: tuple[KindTable, ...]
    held_out: tuple[float, ...]
    nodes: int


def fit_tables(measured: Sequence[MeasuredNetwork], device: Device, us_per_run: float = 0.0) -> FittedTables:
    """Tables fitted to all networks, and how far off they are for those left out, a fifth at a time.

    A network is told by its nodes where their shares are known, else as a whole; ``us_per_run`` of its time
    are of no node.
    """
    design = _Design.of(measured, device, us_per_run)
    fold = design.network % _FOLDS
    predicted = np.empty(len(design.times_ms))
    for left_out in range(min(_FOLDS, len(measured))):
        own = fold == left_out
        predicted[own] = design.matrix[own] @ design.solve(~own) * design.times_ms[own]
    return FittedTables(
        kinds=design.tables(design.solve(np.ones(len(fold), dtype=bool))),
        held_out=design.ratios_by_block(predicted),
        nodes=len(fold),
    )


@dataclass(frozen=True, kw_only=True)
class _Design:
    """A row a node, or a network that is told as a whole: what it has of everything, over its own time."""

    columns: tuple[tuple[TableKey, str], ...]
    matrix: Array
    times_ms: Array
    network: NDArray[np.int64]
    block: tuple[str, ...]

    @classmethod
    def of(cls, measured: Sequence[MeasuredNetwork], device: Device, us_per_run: float) -> _Design:
        rows: list[_Row] = []
        times, owners, blocks = [], [], []
        for place, network in enumerate(measured):
            spent_ms = max(0.0, network.time_ms - us_per_run / 1e3)
            for nodes, share, block in _told(network):
                if share * spent_ms > 0:
                    rows.append(_summed([_features(op, device) for op in nodes], share * spent_ms))
                    times.append(share * spent_ms)
                    owners.append(place)
                    blocks.append(block)
        columns = tuple(sorted({column for row in rows for column in row}))
        places = {column: at for at, column in enumerate(columns)}
        values = np.zeros((len(rows), len(columns)))
        for at, row in enumerate(rows):
            values[at, [places[column] for column in row]] = list(row.values())
        return cls(
            columns=columns,
            matrix=values,
            times_ms=np.array(times),
            network=np.array(owners, dtype=np.int64),
            block=tuple(blocks),
        )

    def solve(self, chosen: NDArray[np.bool_]) -> Array:
        """Non-negative coefficients from the chosen rows."""
        weights = self.times_ms[chosen] ** _WEIGHT_POWER
        groups = sorted({_group(key, name) for key, name in self.columns})
        pooled = np.array(
            [[_group(*column) == group for group in groups] for column in self.columns], dtype=float
        )
        matrix = self.matrix[chosen]
        together = _robust(matrix @ pooled, weights, np.zeros(len(groups)), _RIDGE_POOLED)
        return _robust(matrix, weights, pooled @ together, _RIDGE)

    def ratios_by_block(self, predicted_ms: Array) -> tuple[float, ...]:
        """Measured over predicted time of every block of every network."""
        sums: dict[tuple[int, str], list[float]] = {}
        rows = zip(self.network, self.block, self.times_ms, predicted_ms, strict=True)
        for network, block, spent, predicted in rows:
            own = sums.setdefault((int(network), block), [0.0, 0.0])
            own[0] += spent
            own[1] += predicted
        return tuple(spent / max(predicted, 1e-9) for spent, predicted in sums.values())

    def tables(self, solution: Array) -> tuple[KindTable, ...]:
        """The coefficients as rows of a profile."""
        values: dict[TableKey, dict[str, Any]] = {}
        for (key, name), value in zip(self.columns, solution, strict=True):
            values.setdefault(key, {})[name] = float(f"{value:.5g}")
        return tuple(KindTable(**_named(key), **values[key]) for key in sorted(values))


def _told(network: MeasuredNetwork) -> Iterator[tuple[Sequence[OpWork], float, str]]:
    """Nodes, the share of the time that they take, and the block that they are of."""
    run = [op for op in network.operations if op.kind is not OpKind.FREE]
    known = [op for op in run if op.name in network.shares and not is_joint(op.name)]
    if not known:
        yield run, 1.0, ""
    for op in known:
        yield (op,), network.shares[op.name], block_of(op.name)


def _features(work: OpWork, device: Device) -> _Row:
    op_type = work.op_type if work.kind in _BY_OPERATOR else ""
    key = table_key(work.kind.value, op_type, work.integer, work.blocked)
    parts = features(work, quantum=device.quantum, far_from_bytes=device.far_from_bytes)
    # In milliseconds for a coefficient of one.
    return {(key, name): value * (1e-3 if name == "us_per_node" else 1e-9) for name, value in parts.items()}


def _summed(nodes: Sequence[_Row], time_ms: float) -> _Row:
    total: _Row = {}
    for node in nodes:
        for column, value in node.items():
            total[column] = total.get(column, 0.0) + value / time_ms
    return total


def _named(key: TableKey) -> dict[str, Any]:
    return dict(zip(_KEY, key, strict=True))


def _group(key: TableKey, name: str) -> tuple[str, bool, str]:
    """What a coefficient is like where its own kind was measured too little: arithmetic, or all else."""
    kind, _, integer, _ = key
    return ("arithmetic" if kind in _ARITHMETIC else "values", integer, name)


def _robust(matrix: Array, weights: Array, prior: Array, ridge: float) -> Array:
    """Coefficients >= 0 that bring every row near 1 and stay near ``prior`` where rows say little."""
    scale = np.maximum(np.sqrt((matrix**2).mean(axis=0)), 1e-12)
    solution, damped = prior * scale, weights
    for _ in range(_REWEIGHTED):
        solution = _non_negative(matrix / scale, damped, solution, prior * scale, ridge)
        errors = np.abs(matrix / scale @ solution - 1.0)
        damped = weights * np.sqrt(np.minimum(1.0, _OUTLIER / np.maximum(errors, 1e-9)))
    found: Array = solution / scale
    return found


def _non_negative(matrix: Array, weights: Array, start: Array, prior: Array, ridge: float) -> Array:
    """By coordinate descent on the normal equations."""
    weighted = matrix * weights[:, None]
    gram = weighted.T @ weighted + ridge * len(matrix) * np.eye(matrix.shape[1])
    target = weighted.T @ weights + ridge * len(matrix) * prior
    solution = start.copy()
    gradient = gram @ solution - target
    for _ in range(_SWEEPS):
        moved = 0.0
        for column in range(len(solution)):
            new = max(0.0, solution[column] - gradient[column] / gram[column, column])
            step = new - solution[column]
            if step != 0.0:
                gradient += step * gram[:, column]
                solution[column] = new
                moved = max(moved, abs(step))
        if moved < _SETTLED:
            break
    return solution


def with_threads(
    kinds: Sequence[KindTable], times: Sequence[tuple[float, float, float]], threads: int
) -> tuple[KindTable, ...]:
    """Tables with the parallel efficiencies of arithmetic and of all else that fit times with threads best.

    ``times``: of each network the milliseconds of its arithmetic and of the rest with one thread, and of all
    with ``threads``.
    """
    arithmetic, rest, together = (np.array(column) for column in zip(*times, strict=True))
    best = min(
        (
            (
                float(
                    np.mean(
                        np.log(
                            together / (arithmetic / (1 + (threads - 1) * a) + rest / (1 + (threads - 1) * r))
                        )
                        ** 2
                    )
                ),
                a,
                r,
            )
            for a in _EFFICIENCIES
            for r in _EFFICIENCIES
        ),
        key=lambda found: found[0],
    )
    return tuple(
        replace(
            table,
            parallel_efficiency=round(
                float(best[1 if table.ps_per_mac or table.ps_per_padded_mac else 2]), 3
            ),
        )
        for table in kinds
    )
