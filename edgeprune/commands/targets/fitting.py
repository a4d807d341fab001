"""Tables of a calibration from times of the grid: non-negative least squares of relative errors.

Source of the method: Lawson and Hanson 1974, "Solving Least Squares Problems", chapter 23, here by coordinate
descent; outliers count less (Huber 1964).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.profiling.costs import TableKey, features, table_key
from edgeprune.profiling.kinds import OpKind, OpWork
from edgeprune.targets import KindTable

_BY_OPERATOR = frozenset({OpKind.FUNCTION, OpKind.MEMORY, OpKind.BORDER, OpKind.POOL, OpKind.NORMALIZATION})
"""Kinds whose operators have little in common."""
_ARITHMETIC = frozenset(
    kind.value for kind in (OpKind.CONV, OpKind.POINTWISE, OpKind.DEPTHWISE, OpKind.GROUPED, OpKind.GEMM)
)
_KEY = ("kind", "op_type", "integer", "blocked")
_RUN: TableKey = ("run", "", False, False)
_LEAST_SHARE = 0.01
_RIDGE, _RIDGE_POOLED = 3e-3, 1e-5
_SETTLED = 1e-5
_SWEEPS, _REWEIGHTED, _OUTLIER = 200, 3, 0.15
_FOLDS = 5
_EFFICIENCIES = np.linspace(0.0, 1.0, 21)

Array = NDArray[np.float64]
_Row = dict[tuple[TableKey, str], float]


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """Work and CPU milliseconds of one network; ``shares`` of its nodes by name or by type, if known."""

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
    """Tables for one thread, and the microseconds of every run; ``held_out`` are measured over predicted."""

    kinds: tuple[KindTable, ...]
    us_per_run: float
    held_out: tuple[float, ...]


def fit_tables(measured: Sequence[MeasuredNetwork], device: Device) -> FittedTables:
    """Tables fitted to all networks, and how far off they are for those left out, a fifth at a time."""
    design = _Design.of(measured, device)
    solution = design.solve(np.ones(len(measured), dtype=bool))
    fold = np.arange(len(measured)) % _FOLDS
    ratios = np.empty(len(measured))
    for left_out in range(min(_FOLDS, len(measured))):
        part = design.solve(fold != left_out)
        ratios[fold == left_out] = 1.0 / np.maximum(design.totals[fold == left_out] @ part, 1e-9)
    return FittedTables(
        kinds=design.tables(solution),
        us_per_run=float(solution[design.columns.index((_RUN, "us_per_node"))]),
        held_out=tuple(float(r) for r in ratios),
    )


@dataclass(frozen=True, kw_only=True)
class _Design:
    """What each network (``totals``) and each of its nodes (``parts``) has, over its own time."""

    columns: tuple[tuple[TableKey, str], ...]
    totals: Array
    parts: Array
    part_of: NDArray[np.int64]
    part_weights: Array

    @classmethod
    def of(cls, measured: Sequence[MeasuredNetwork], device: Device) -> _Design:
        rows: list[_Row] = []
        parts, owners = [], []
        for place, network in enumerate(measured):
            nodes = [(op, _features(op, device)) for op in network.operations if op.kind is not OpKind.FREE]
            rows.append(
                _summed([f for _, f in nodes], network.time_ms)
                | {(_RUN, "us_per_node"): 1e-3 / network.time_ms}
            )
            for own, share in _nodes_of(network.shares, nodes):
                if own and share >= _LEAST_SHARE:
                    parts.append(_summed(own, share * network.time_ms))
                    owners.append((place, math.sqrt(share)))
        columns = tuple(sorted({column for row in rows for column in row}))

        def matrix(given: list[_Row]) -> Array:
            return np.array([[row.get(c, 0.0) for c in columns] for row in given]).reshape(-1, len(columns))

        return cls(
            columns=columns,
            totals=matrix(rows),
            parts=matrix(parts),
            part_of=np.array([owner for owner, _ in owners], dtype=np.int64),
            part_weights=np.array([weight for _, weight in owners]),
        )

    def solve(self, chosen: NDArray[np.bool_]) -> Array:
        """Non-negative coefficients from the chosen networks."""
        own = chosen[self.part_of] if len(self.part_of) else np.zeros(0, dtype=bool)
        matrix = np.concatenate([self.totals[chosen], self.parts[own]])
        weights = np.concatenate([np.ones(int(chosen.sum())), self.part_weights[own]])
        groups = sorted({_group(key, name) for key, name in self.columns})
        pooled = np.array(
            [[_group(*column) == group for group in groups] for column in self.columns], dtype=float
        )
        together = _robust(matrix @ pooled, weights, np.zeros(len(groups)), _RIDGE_POOLED)
        return _robust(matrix, weights, pooled @ together, _RIDGE)

    def tables(self, solution: Array) -> tuple[KindTable, ...]:
        """The coefficients as rows of a profile."""
        values: dict[TableKey, dict[str, Any]] = {}
        for (key, name), value in zip(self.columns, solution, strict=True):
            values.setdefault(key, {})[name] = float(f"{value:.5g}")
        return tuple(KindTable(**_named(key), **values[key]) for key in sorted(values) if key != _RUN)


def _nodes_of(
    shares: Mapping[str, float], nodes: Sequence[tuple[OpWork, _Row]]
) -> list[tuple[list[_Row], float]]:
    """Features of the nodes that a share is of: the one of that name, else all of that type.

    Nodes without a name are told as TYPE_NUMBER; they are taken together.
    """
    names = {op.name for op, _ in nodes if op.name}
    by_type: dict[str, float] = {}
    rows = []
    for name, share in shares.items():
        if name in names:
            rows.append(([f for op, f in nodes if op.name == name], share))
        else:
            stem, _, number = name.rpartition("_")
            op_type = stem if number.isdigit() else name
            by_type[op_type] = by_type.get(op_type, 0.0) + share
    named = bool(rows)
    for op_type, share in by_type.items():
        rows.append(([f for op, f in nodes if op.op_type == op_type and not (named and op.name)], share))
    return rows


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
    return ("run" if key == _RUN else "arithmetic" if kind in _ARITHMETIC else "values", integer, name)


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
