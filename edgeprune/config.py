"""The project file ``edgeprune.toml``, and the option values that it shares with the command line."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune import limits
from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.calibration import ChannelOrder
from edgeprune.artifacts.choices import Finetune, RankedPlayers
from edgeprune.documents import load_toml
from edgeprune.errors import UsageError
from edgeprune.showing import without_middle

CONFIG_NAME = "edgeprune.toml"


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """Preprocessing as asked for; ``None`` leaves a value to the card, or to the card beside the data."""

    card: str | None = None
    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: ChannelOrder | None = None


@dataclass(frozen=True, kw_only=True)
class ProjectConfig:
    """Defaults of a project; ``None`` leaves a value to the command line or to edgeprune.

    ``source`` is the file read, ``None`` where there is none. Paths in it count from its folder.
    """

    source: Path | None = None
    calibration: str | None = None
    target: str | None = None
    ratio: float | None = None
    arch: str | None = None
    input_shape: tuple[int, ...] | None = None
    seed: int | None = None
    threads: int | None = None
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)


def find_config(start_dir: str | Path) -> Path | None:
    """``edgeprune.toml`` in a folder (its parents are not searched), or ``None``."""
    candidate = Path(start_dir) / CONFIG_NAME
    return candidate if candidate.is_file() else None


def load_config(path: str | Path) -> ProjectConfig:
    """Read a project file.

    Raises:
        UsageError: it is no TOML, or has an unknown key or a value that is not accepted.
    """
    source = Path(path)
    try:
        table = load_toml(source)
    except OSError as error:
        raise UsageError(f"project file {str(source)!r} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"project file {str(source)!r} is not valid TOML: {error}") from error
    preprocessing = table.pop("preprocessing", {})
    if not isinstance(preprocessing, dict):
        raise UsageError(f"project file {str(source)!r}: 'preprocessing' has to be a [preprocessing] table")
    values = _read_table(source, table, _TOP_LEVEL_KEYS, where="")
    options = _read_table(source, preprocessing, _PREPROCESSING_KEYS, where="preprocessing.")
    for key in ("calibration", "arch"):
        if key in values:
            values[key] = _beside(source, values[key])
    if options.get("card", "").endswith(".toml"):
        options["card"] = _beside(source, options["card"])
    return ProjectConfig(source=source, preprocessing=PreprocessingOptions(**options), **values)


def check_ratio(value: object) -> float:
    """The share of the MACs to cut.

    Raises:
        UsageError: not a number between 0 and 1, both excluded.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 < value < 1.0:
        return float(value)
    given = f"{value:g}" if isinstance(value, float) else repr(value)
    raise UsageError(
        f"ratio {given} is not accepted: it is the share of the MACs to cut, "
        "between 0 and 1 (0.25 cuts a quarter)"
    )


def _shown(value: str) -> str:
    """As it was typed; in quotes where nobody would see it."""
    return value if value.strip() else repr(value)


def parse_input_shape(value: object) -> tuple[int, ...]:
    """Shape of one image, (channels, height, width), from ``3x32x32``, ``3,32,32`` or a list.

    Raises:
        UsageError: not three positive whole numbers.
    """
    parts: list[Any] = value.replace("x", ",").split(",") if isinstance(value, str) else _as_list(value)
    numbers = [_positive_int(part) for part in parts]
    shape = tuple(number for number in numbers if number is not None)
    if len(shape) != 3 or len(parts) != 3 or math.prod(shape) > limits.MOST_INPUT_VALUES:
        raise UsageError(
            f"input shape {_shortened(value)} is not accepted: give channels, height and width of one image "
            f"without the batch, such as 3x224x224, {_SIZES}"
        )
    return shape


_MOST_DIGITS = 20
_SIZES = f"each at most {limits.SIZE.most} and at most {limits.MOST_INPUT_VALUES} together"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else without_middle(text, head=40, tail=15)


def check_players(players: RankedPlayers, criteria: Sequence[str], layers: Sequence[str]) -> None:
    """Refuse criteria and layers of channels where blocks are ranked.

    Raises:
        UsageError: there are some.
    """
    if players is RankedPlayers.BLOCKS and (criteria or layers):
        raise UsageError(
            "blocks were asked for together with --criterion or --layer, which are of channels; accepted is "
            "--players blocks alone: blocks are ranked by Shapley values"
        )


def check_recover_at(shares: Sequence[float], players: RankedPlayers) -> None:
    """Refuse what is no share of the MACs, and shares where blocks are ranked.

    Raises:
        UsageError: there is one.
    """
    for share in shares:
        if not 0.0 < share < 1.0:
            raise UsageError(
                f"--recover-at {share:g} was given; accepted is a share of the MACs between 0 and 1 (0.25 "
                "recovers networks without a quarter)"
            )
    if shares and players is RankedPlayers.BLOCKS:
        raise UsageError(
            "blocks were asked for together with --recover-at, which is of channels; accepted is --players "
            "blocks without it"
        )


_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(value: str, *, option: str) -> int:
    """A number of bytes from ``2GB``, ``512 MiB`` or ``1.5gb``; kB, MB and GB are powers of 1,000.

    Raises:
        UsageError: no positive number with one of the units.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([a-z]+)\s*", value, flags=re.IGNORECASE | re.ASCII)
    unit = _UNITS.get(found[2].lower()) if found is not None else None
    size = int(float(found[1]) * unit) if found is not None and unit is not None else 0
    if size < 1:
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted is a number with a unit, such as 2GB, 500MB or "
            "1GiB (kB, MB, GB: powers of 1000; KiB, MiB, GiB: powers of 1024)"
        )
    return size


_TIMES_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


def parse_latency(value: str, *, option: str) -> tuple[float | None, float | None]:
    """Milliseconds from ``40ms``, ``800us`` or ``1.5s``, or a share of the original's from ``50%``.

    Raises:
        UsageError: no positive number with one of the units.
    """
    found = re.fullmatch(r"\s*(\d{1,12}(?:\.\d+)?|\.\d+)\s*(us|µs|ms|s|%)\s*", value, flags=re.IGNORECASE)
    number = float(found[1]) if found is not None else 0.0
    if found is None or number <= 0.0:
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted is a time with its unit, such as 40ms, 800us or "
            "1.5s, or a share of the original's latency, such as 50%"
        )
    unit = found[2].lower()
    return (None, number / 100) if unit == "%" else (number * _TIMES_MS[unit], None)


def parse_finetune(value: str, *, option: str) -> Finetune:
    """Steps from ``250``, or a time from ``60s`` or ``2min``.

    Raises:
        UsageError: neither a whole number from 1 on nor a positive time with its unit.
    """
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d+)?)\s*(s|min|h)?\s*", value, flags=re.IGNORECASE)
    number = float(found[1]) if found is not None else 0.0
    if found is None or number <= 0.0 or (found[2] is None and not number.is_integer()):
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted are steps, such as 250, or a time, "
            "such as 60s or 2min"
        )
    if found[2] is None:
        return Finetune(steps=int(number))
    return Finetune(time_limit_s=number * {"s": 1, "min": 60, "h": 3600}[found[2].lower()])


def parse_duration(value: str, *, option: str) -> float:
    """Seconds from ``90s``, ``10min`` or ``1.5h``.

    Raises:
        UsageError: no positive time with its unit.
    """
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d+)?)\s*(s|min|h)\s*", value, flags=re.IGNORECASE)
    if found is None or float(found[1]) <= 0.0:
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted is a time with its unit, such as 90s or 10min"
        )
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2].lower()]


def parse_points(value: str, *, option: str) -> float:
    """Percentage points from ``1``, ``0.5%`` or ``1.5 points``.

    Raises:
        UsageError: no number from 0 to 100.
    """
    found = re.fullmatch(r"\s*(\d{1,3}(?:\.\d+)?|\.\d+)\s*(%|points?|pp)?\s*", value, flags=re.IGNORECASE)
    if found is None or float(found[1]) > 100:
        raise UsageError(
            f"{option} {_shown(value)} was given; accepted are percentage points of accuracy from 0 to 100, "
            "such as 1 or 0.5%"
        )
    return float(found[1])


def parse_budget(
    max_latency: str | None, max_size: str | None, max_memory: str | None, max_drop: str | None
) -> Budget:
    """The budget that the options name.

    Raises:
        UsageError: a value without a unit that is known, or out of range.
    """
    time_ms, share = (
        (None, None) if max_latency is None else parse_latency(max_latency, option="--max-latency")
    )
    return Budget(
        max_latency_ms=time_ms,
        max_latency_share=share,
        max_size_bytes=None if max_size is None else parse_bytes(max_size, option="--max-size"),
        max_memory_bytes=None if max_memory is None else parse_bytes(max_memory, option="--max-memory"),
        max_drop_points=None if max_drop is None else parse_points(max_drop, option="--max-drop"),
    )


def parse_input_shapes(values: Sequence[str]) -> tuple[int, ...] | tuple[tuple[int, ...], ...]:
    """Shape of an image, or one shape an input where several are given; those may have any rank.

    Raises:
        UsageError: a size is no positive whole number, or a lone shape does not have three.
    """
    if len(values) == 1:
        return parse_input_shape(values[0])
    shapes = []
    for value in values:
        numbers = [_positive_int(part) for part in value.replace("x", ",").split(",")]
        sizes = tuple(n for n in numbers if n is not None)
        if len(sizes) < len(numbers) or math.prod(sizes) > limits.MOST_INPUT_VALUES:
            raise UsageError(
                f"input shape {_shortened(value)} is not accepted: give the sizes of one input without the "
                f"batch, such as 3x224x224 or 10, once for each input, {_SIZES}"
            )
        shapes.append(sizes)
    return tuple(shapes)


def _as_list(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _positive_int(value: object) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value) if len(value) <= _MOST_DIGITS else None
    return value if limits.SIZE.holds(value) else None


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise UsageError("a text in quotes is expected")


def _one_of(numbers: limits.WholeNumbers) -> Callable[[object], int]:
    def read(value: object) -> int:
        if numbers.holds(value):
            return value
        raise UsageError(f"{numbers.accepted} is expected")

    return read


def _floats(value: object) -> tuple[float, ...]:
    items = _as_list(value)
    if items and all(limits.is_finite(item) for item in items):
        return tuple(float(item) for item in items)
    raise UsageError("a number or a list of numbers, one per channel, is expected")


def _channel_order(value: object) -> ChannelOrder:
    for order in ChannelOrder:
        if value == order.value:
            return order
    accepted = " or ".join(repr(order.value) for order in ChannelOrder)
    raise UsageError(f"{accepted} is expected")


_TOP_LEVEL_KEYS: dict[str, Callable[[object], Any]] = {
    "calibration": _text,
    "target": _text,
    "ratio": check_ratio,
    "arch": _text,
    "input-shape": parse_input_shape,
    "seed": _one_of(limits.SEED),
    "threads": _one_of(limits.THREADS),
}
_PREPROCESSING_KEYS: dict[str, Callable[[object], Any]] = {
    "card": _text,
    "resize": _one_of(limits.PIXELS),
    "crop": _one_of(limits.PIXELS),
    "mean": _floats,
    "std": _floats,
    "channel-order": _channel_order,
}


def _read_table(
    source: Path, table: dict[str, Any], readers: dict[str, Callable[[object], Any]], *, where: str
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    known = [*readers, "preprocessing"] if not where else list(readers)
    for key, value in table.items():
        if key not in readers:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(
                f"project file {str(source)!r} has the unknown key '{where}{key}'; {hint}"
                f"accepted: {', '.join(known)}"
            )
        try:
            values[key.replace("-", "_")] = readers[key](value)
        except UsageError as error:
            raise UsageError(
                f"project file {str(source)!r}: '{where}{key}' is {value!r}, but {error}"
            ) from None
    return values


def _beside(source: Path, value: str) -> str:
    """A path in a project file counts from its folder; ``package.module:name`` is no path."""
    if ".py:" in value:
        location, _, name = value.rpartition(":")
        return f"{source.parent / location}:{name}"
    return value if ":" in value else str(source.parent / value)
