"""Options of ``compare`` and ``check``, and the file of limits, ``budget.toml``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Predicate

from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.gate.outcomes import GateLimits, OnInconclusive
from edgeprune.limits import RUN_TIMEOUT_S, TIME_S
from edgeprune.options.bounds import Bounds, Seed, Threads, TimeoutS
from edgeprune.options.cli_option import CliOption, Panel
from edgeprune.options.quantities import parse_bytes, parse_latency, parse_points
from edgeprune.storage.documents import UnreadableError, read_toml
from edgeprune.storage.tables import Expected, TableError, from_table

TIME_LIMIT_S = 60.0
EXAMPLE = """\
# Limits of `edgeprune check OUT --budget budget.toml`; leave out what does not matter.
# Ratios and max_drop_points are against --baseline, or else against the original network of the report.
max_size_bytes = "1.2 MB"      # or a whole number of bytes; kB, MB: powers of 1000, KiB, MiB: of 1024
max_size_ratio = 1.02
max_latency_ms = "40 ms"       # on the report's target (predicted), or measured here for target host
max_latency_ratio = 1.05       # CPU time, measured here in rounds
max_memory_bytes = "64 MiB"
max_memory_ratio = 1.10
max_drop_points = 1.0          # percentage points of accuracy, AP or mean IoU
min_agreement = 0.95           # share of the original's (right) answers that it still gives
# min_measure = 0.90           # the task measure itself: a share, or the value of --metric
# max_error = 0.05             # where the measure is an error
"""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of the comparison; see :func:`edgeprune.compare`."""

    models: tuple[str | Path, ...] = field(kw_only=False)
    measure: Annotated[
        bool,
        CliOption(
            flags="--measure/--no-measure",
            help="Compare CPU times on this host by interleaved pairs, where both have an ONNX file.",
            panel=Panel.GOAL,
        ),
    ] = True
    input_shape: tuple[int, ...] | None = None
    threads: Threads = None
    timeout_s: TimeoutS = RUN_TIMEOUT_S
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of the gate; see :func:`edgeprune.check`."""

    model: str | Path = field(kw_only=False)
    baseline: Annotated[
        str | Path | None,
        CliOption(
            metavar="PATH",
            kind=str | None,
            help="Another one of these. Without --budget: sizes may grow by 2%, CPU time by 5%, memory by "
            "10%, and 1 point may be lost.",
            panel=Panel.GOAL,
        ),
    ] = None
    budget: Annotated[
        GateLimits | str | Path | None,
        CliOption(
            metavar="FILE",
            kind=Path | None,
            help="Limits as TOML; --init writes an example.",
            panel=Panel.GOAL,
        ),
    ] = None
    time_limit_s: Annotated[float, Bounds(TIME_S, "--time-limit")] = TIME_LIMIT_S
    inconclusive: Annotated[
        OnInconclusive,
        CliOption(
            help="What a difference within noise means for the exit status: 0, 1, or 3 of its own.",
            panel=Panel.GOAL,
        ),
    ] = OnInconclusive.REPORT
    input_shape: tuple[int, ...] | None = None
    threads: Threads = None
    timeout_s: TimeoutS = RUN_TIMEOUT_S
    seed: Seed = 0

    @property
    def budget_file(self) -> Path | None:
        """``budget`` where it is a file."""
        return Path(self.budget) if isinstance(self.budget, (str, Path)) else None

    def limits(self) -> GateLimits | None:
        """Limits of the budget, read from its file where it is one.

        Raises:
            UsageError: see :func:`read_limits`; no limits, an empty set of them, or values that are none.
        """
        if self.budget is None:
            return None
        if isinstance(self.budget, (str, Path)):
            return read_limits(self.budget)
        if not isinstance(self.budget, GateLimits):
            raise UsageError(
                f"budget is of type {type(self.budget).__name__}; accepted are GateLimits and the path of a "
                "budget.toml"
            )
        given = {f.name: getattr(self.budget, f.name) for f in dataclasses.fields(self.budget)}
        try:
            return _limits_of({name: value for name, value in given.items() if value is not None})
        except TableError as error:
            raise UsageError(f"budget: {error}") from error


def _number_with(parse: Callable[[str], float | None]) -> Callable[[Any], bool]:
    """Whether a value is a positive number, or a text that ``parse`` takes."""

    def holds(value: Any) -> bool:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return 0 < value < math.inf
        try:
            return isinstance(value, str) and parse(value) is not None
        except EdgepruneError:
            return False

    return holds


def _bytes(value: Any) -> int:
    return parse_bytes(value, option="") if isinstance(value, str) else int(value)


def _milliseconds(value: Any) -> float | None:
    return parse_latency(value, option="")[0] if isinstance(value, str) else float(value)


def _points(value: Any) -> float:
    return parse_points(value, option="") if isinstance(value, str) else float(value)


def _is_points(value: Any) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return 0 <= value <= 100
    return _number_with(_points)(value)


_Bytes = Annotated[
    Any, Predicate(_number_with(_bytes)), Expected('a positive number of bytes, or a text such as "1.2 MB",')
]
_Milliseconds = Annotated[
    Any,
    Predicate(_number_with(_milliseconds)),
    Expected('a positive number of milliseconds, or a text such as "40 ms",'),
]
_Ratio = Annotated[
    float, Predicate(lambda value: 0 < value < 1000), Expected("a positive ratio such as 1.05")
]
_Points = Annotated[Any, Predicate(_is_points), Expected("percentage points from 0 to 100")]
_Finite = Annotated[float, Predicate(math.isfinite), Expected("a finite number")]
_Share = Annotated[float, Predicate(lambda value: 0 <= value <= 1), Expected("a share from 0 to 1")]


@dataclass(frozen=True, kw_only=True)
class _BudgetFile:
    """The keys of ``budget.toml`` with what each accepts; the names are those of :class:`GateLimits`."""

    max_size_bytes: _Bytes = None
    max_size_ratio: _Ratio | None = None
    max_latency_ms: _Milliseconds = None
    max_latency_ratio: _Ratio | None = None
    max_memory_bytes: _Bytes = None
    max_memory_ratio: _Ratio | None = None
    max_drop_points: _Points = None
    max_error: _Finite | None = None
    min_measure: _Finite | None = None
    min_agreement: _Share | None = None


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "max_size_bytes": _bytes,
    "max_memory_bytes": _bytes,
    "max_latency_ms": _milliseconds,
    "max_drop_points": _points,
}


def read_limits(path: str | Path) -> GateLimits:
    """The limits of a ``budget.toml``.

    Raises:
        UsageError: no such file, no TOML, an unknown key (with the nearest known one), a value that is not
            accepted, or no limit at all.
    """
    shown = repr(str(path))
    try:
        return _limits_of(read_toml(Path(path)))
    except UnreadableError as error:
        raise UsageError(f"budget {shown} {error}; edgeprune check --init shows one") from error
    except TableError as error:
        raise UsageError(f"budget {shown} {error}") from error


def _limits_of(keys: dict[str, Any]) -> GateLimits:
    """The limits of a table.

    Raises:
        TableError: a key or value that is not accepted, or no limit at all.
    """
    table = from_table(_BudgetFile, keys)
    given = {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}
    limits = GateLimits(
        **{
            name: value if value is None else _CONVERSIONS.get(name, lambda number: number)(value)
            for name, value in given.items()
        }
    )
    if limits.is_empty:
        raise TableError(f"has no limit; accepted are {', '.join(given)}")
    return limits
