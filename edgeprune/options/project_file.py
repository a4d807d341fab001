"""The project file ``edgeprune.toml``, and the option values that it shares with the command line."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Predicate

from edgeprune import limits
from edgeprune.artifacts.choices import RankedPlayers
from edgeprune.errors import UsageError
from edgeprune.options.accepted import Seed, Text, Threads, as_list
from edgeprune.options.cards import PreprocessingOptions, PreprocessingTable
from edgeprune.showing import in_short
from edgeprune.storage.documents import UnreadableError, read_toml
from edgeprune.storage.tables import Expected, TableError, from_table

CONFIG_NAME = "edgeprune.toml"
FOLDER_PREFIX = "hf:"
"""What a folder of transformers is given with, as a model or architecture."""
COMMAND_TABLES = ("compress", "rank", "quantize", "profile", "inspect", "verify")
"""Commands with a table of their own in the file."""
SHARED_KEYS = {
    "calibration": '"calibration"',
    "labels": '"labels.csv"',
    "target": '"rpi4"',
    "ratio": "0.25",
    "arch": '"model.py:build"',
    "input-shape": "[3, 224, 224]",
    "seed": "0",
    "threads": "4",
    "preprocessing.card": '"imagenet"',
    "preprocessing.resize": "256",
    "preprocessing.crop": "224",
    "preprocessing.letterbox": "640",
    "preprocessing.pad": "114",
    "preprocessing.exif": "true",
    "preprocessing.ground": '"black"',
    "preprocessing.mean": "[0.485, 0.456, 0.406]",
    "preprocessing.std": "[0.229, 0.224, 0.225]",
    "preprocessing.channel-order": '"rgb"',
}
"""Keys for every command, with an example."""
_SHARED_NAMES = frozenset(key.replace("-", "_") for key in SHARED_KEYS if "." not in key)


@dataclass(frozen=True, kw_only=True)
class ProjectConfig:
    """Defaults of a project; ``None`` leaves a value to the command line or to edgeprune.

    ``source`` is the file read, ``None`` where there is none. Paths in it count from its folder. ``commands``
    has the tables of single commands as they were read; the command line knows what they may hold.
    """

    source: Path | None = None
    calibration: str | None = None
    labels: str | None = None
    target: str | None = None
    ratio: float | None = None
    arch: str | None = None
    input_shape: tuple[int, ...] | None = None
    seed: int | None = None
    threads: int | None = None
    preprocessing: PreprocessingOptions = field(default_factory=PreprocessingOptions)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)

    def shared(self, name: str) -> Any:
        """Value of a shared key or a preprocessing key; ``None`` if it is not set."""
        if name in _SHARED_NAMES:
            return getattr(self, name)
        return getattr(self.preprocessing, name, None)


def _is_ratio(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 < value < 1.0


def _shape_of(value: object) -> tuple[int, ...] | None:
    """Three sizes from ``3x32x32``, ``3,32,32`` or a list; ``None`` if they are not accepted."""
    parts: list[Any] = value.replace("x", ",").split(",") if isinstance(value, str) else as_list(value)
    shape = tuple(number for number in map(_positive_int, parts) if number is not None)
    fits = len(shape) == len(parts) == 3 and math.prod(shape) <= limits.MOST_INPUT_VALUES
    return shape if fits else None


_SIZES = f"each at most {limits.SIZE.most} and at most {limits.MOST_INPUT_VALUES} together"
_A_SHAPE = f"channels, height and width of one image without the batch, such as 3x224x224, {_SIZES},"
Ratio = Annotated[
    float,
    Predicate(_is_ratio),
    Expected("the share of the MACs to cut, between 0 and 1 (0.25 cuts a quarter),"),
]
InputShape = Annotated[Any, Predicate(lambda value: _shape_of(value) is not None), Expected(_A_SHAPE)]


@dataclass(frozen=True, kw_only=True)
class _CardName:
    """The card to begin with."""

    card: Text | None = None


@dataclass(frozen=True, kw_only=True)
class PreprocessingWithCard(PreprocessingTable, _CardName):
    """``[preprocessing]`` as it is in the file."""


@dataclass(frozen=True, kw_only=True)
class _TopTable:
    """The keys for every command as they are in the file, without its tables."""

    calibration: Text | None = None
    target: Text | None = None
    labels: Text | None = None
    ratio: Ratio | None = None
    arch: Text | None = None
    input_shape: InputShape | None = None
    seed: Seed | None = None
    threads: Threads | None = None


def find_config(start_dir: str | Path) -> Path | None:
    """``edgeprune.toml`` in a folder (its parents are not searched), or ``None``."""
    candidate = Path(start_dir) / CONFIG_NAME
    return candidate if candidate.is_file() else None


def load_config(path: str | Path) -> ProjectConfig:
    """Read a project file.

    Raises:
        UsageError: it is not TOML, or has an unknown key or a value that is not accepted.
    """
    source = Path(path)
    try:
        table = read_toml(source)
    except UnreadableError as error:
        raise UsageError(f"project file {str(source)!r} {error}; correct the file, or remove it") from error
    apart = ("preprocessing", *COMMAND_TABLES)
    tables = {name: table.pop(name) for name in apart if name in table}
    for name, value in tables.items():
        if not isinstance(value, dict):
            raise UsageError(f"project file {str(source)!r}: {name!r} has to be a [{name}] table")
    preprocessing = tables.pop("preprocessing", {})
    with _told_with(source):
        top = from_table(_TopTable, table, hyphens=True, apart=apart)
        options = from_table(PreprocessingWithCard, preprocessing, inside="preprocessing.", hyphens=True)
    card = options.card
    return ProjectConfig(
        source=source,
        calibration=None if top.calibration is None else beside(source, top.calibration),
        labels=None if top.labels is None else beside(source, top.labels),
        target=top.target,
        ratio=top.ratio,
        arch=None if top.arch is None else beside(source, top.arch),
        input_shape=None if top.input_shape is None else parse_input_shape(top.input_shape),
        seed=top.seed,
        threads=top.threads,
        preprocessing=options.options(
            card=beside(source, card) if card is not None and card.endswith(".toml") else card
        ),
        commands=tables,
    )


def check_ratio(value: object) -> float:
    """Check the share of the MACs to cut.

    Raises:
        UsageError: not a number between 0 and 1, both excluded.
    """
    if _is_ratio(value):
        return float(value)  # type: ignore[arg-type]
    given = f"{value:g}" if isinstance(value, float) else in_short(value)
    raise UsageError(
        f"ratio {given} is not accepted: it is the share of the MACs to cut, "
        "between 0 and 1 (0.25 cuts a quarter)"
    )


def read_ratio(value: str | float) -> float:
    """The share of the MACs to cut, from the text of an option.

    Raises:
        UsageError: not a number between 0 and 1, both excluded.
    """
    number = limits.read_number(value) if isinstance(value, str) else value
    return check_ratio(value if number is None else number)


def read_share(value: str | float) -> float:
    """A share of the MACs from the text of ``--recover-at``.

    Raises:
        UsageError: not a number between 0 and 1, both excluded.
    """
    number = limits.read_number(value) if isinstance(value, str) else value
    if number is None:
        raise _no_share(in_short(value))
    check_recover_at([number], RankedPlayers.CHANNELS)
    return number


def _no_share(given: str) -> UsageError:
    return UsageError(
        f"--recover-at {given} was given; accepted is a share of the MACs between 0 and 1 (0.25 recovers "
        "networks without a quarter)"
    )


def parse_input_shape(value: object) -> tuple[int, ...]:
    """Shape of one image, (channels, height, width), from ``3x32x32``, ``3,32,32`` or a list.

    Raises:
        UsageError: not three positive whole numbers.
    """
    shape = _shape_of(value)
    if shape is None:
        raise UsageError(f"input shape {in_short(value)} is not accepted: give {_A_SHAPE.rstrip(',')}")
    return shape


_MOST_DIGITS = 20


def check_players(players: RankedPlayers, criteria: Sequence[str], layers: Sequence[str]) -> None:
    """Reject criteria and layers, which apply to channels, if blocks are ranked.

    Raises:
        UsageError: criteria or layers are given.
    """
    if players is RankedPlayers.BLOCKS and (criteria or layers):
        raise UsageError(
            "blocks were asked for together with --criterion or --layer, which are of channels; accepted is "
            "--players blocks alone: blocks are ranked by Shapley values"
        )


def check_recover_at(shares: Sequence[float], players: RankedPlayers) -> None:
    """Reject values that are not shares of the MACs, and any shares if blocks are ranked.

    Raises:
        UsageError: a share is rejected.
    """
    for share in shares:
        if not 0.0 < share < 1.0:
            raise _no_share(f"{share:g}")
    if shares and players is RankedPlayers.BLOCKS:
        raise UsageError(
            "blocks were asked for together with --recover-at, which is of channels; accepted is --players "
            "blocks without it"
        )


def parse_input_shapes(values: Sequence[str]) -> tuple[int, ...] | tuple[tuple[int, ...], ...]:
    """Shape of an image, or one shape per input if several are given; those may have any rank.

    Raises:
        UsageError: a size is not a positive whole number, or a single shape does not have three.
    """
    if len(values) == 1:
        return parse_input_shape(values[0])
    shapes = []
    for value in values:
        numbers = [_positive_int(part) for part in value.replace("x", ",").split(",")]
        sizes = tuple(n for n in numbers if n is not None)
        if len(sizes) < len(numbers) or math.prod(sizes) > limits.MOST_INPUT_VALUES:
            raise UsageError(
                f"input shape {in_short(value)} is not accepted: give the sizes of one input without the "
                f"batch, such as 3x224x224 or 10, once for each input, {_SIZES}"
            )
        shapes.append(sizes)
    return tuple(shapes)


def _positive_int(value: object) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value) if len(value) <= _MOST_DIGITS else None
    return value if limits.SIZE.holds(value) else None


@contextlib.contextmanager
def _told_with(source: Path) -> Iterator[None]:
    """Turn the error of a table into a ``UsageError`` that names its file."""
    try:
        yield
    except TableError as error:
        raise UsageError(f"project file {str(source)!r} {error}") from error


def beside(source: Path, value: str) -> str:
    """A path in a project file, as in ``hf:FOLDER``, counts from its folder; ``package:name`` is none."""
    if value.startswith(FOLDER_PREFIX):
        return f"{FOLDER_PREFIX}{source.parent / value.removeprefix(FOLDER_PREFIX)}"
    if ".py:" in value:
        location, _, name = value.rpartition(":")
        return f"{source.parent / location}:{name}"
    return value if ":" in value else str(source.parent / value)
