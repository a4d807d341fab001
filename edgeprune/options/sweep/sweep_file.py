"""The file of a sweep, ``sweep.toml``: models, targets, budgets and precisions, and options for all cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen, Predicate

from edgeprune import limits
from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.choices import HOST, AttentionUnit, BoxFormat, Effort, Task
from edgeprune.artifacts.quantization import Precision
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.options.accepted import Seed, Text, Threads
from edgeprune.options.cards import check_preprocessing, resolve_preprocessing
from edgeprune.options.keywords import Keyword
from edgeprune.options.project_file import (
    InputShape,
    PreprocessingWithCard,
    Ratio,
    beside,
    parse_input_shape,
)
from edgeprune.options.quantities import parse_budget, parse_finetune
from edgeprune.options.sweep.fleet import SweepDevice, read_devices
from edgeprune.options.sweep.names import NAME, Name
from edgeprune.showing import in_short
from edgeprune.storage.documents import UnreadableError, read_toml
from edgeprune.storage.tables import Expected, TableError, from_table

MOST_CELLS = 10_000
EXAMPLE = """\
targets = ["rpi4", "n100"]
precisions = ["fp32", "int8"]       # as --precision of compress; fp32 where left out

[[models]]
name = "digits"                     # where left out: what the file is called
model = "digits_net.safetensors"    # paths count from this file's folder
arch = "model.py:digits_net"
calibration = "digits.npz"

[[budgets]]                         # where left out: the fastest that loses at most one point
name = "quarter"
ratio = 0.25

[[budgets]]
name = "fast"
max-latency = "50%"
max-drop = "1"

[options]                           # of compress, the same for all cells
effort = "normal"
"""


def _parses(parse: Callable[[str], object]) -> Predicate:
    """Whether a value is a text that ``parse`` takes."""

    def holds(value: Any) -> bool:
        try:
            return isinstance(value, str) and parse(value) is not None
        except EdgepruneError:
            return False

    return Predicate(holds)


_Latency = Annotated[
    Any,
    _parses(lambda text: parse_budget(text, None, None, None)),
    Expected('a time such as "40ms", or a share of the original\'s such as "50%",'),
]
_Bytes = Annotated[
    Any, _parses(lambda text: parse_budget(None, text, None, None)), Expected('a size such as "1.2MB"')
]
_Points = Annotated[
    Any,
    _parses(lambda text: parse_budget(None, None, None, text)),
    Expected('percentage points in quotes, such as "1" or "0.5%",'),
]
_Training = Annotated[
    Any,
    _parses(lambda text: parse_finetune(text, option="")),
    Expected('steps such as "500", or a time such as "2min",'),
]
_Images = Annotated[int, Predicate(limits.IMAGES.holds), Expected(limits.IMAGES.accepted)]
_Quantum = Annotated[int, Predicate(limits.WIDTH_QUANTUM.holds), Expected(limits.WIDTH_QUANTUM.accepted)]
_Batch = Annotated[int, Predicate(limits.BATCH_SIZE.holds), Expected(limits.BATCH_SIZE.accepted)]
_HeldOut = Annotated[
    float,
    Predicate(lambda value: limits.HELD_OUT.least < value < limits.HELD_OUT.most),
    Expected(limits.HELD_OUT.accepted),
]


@dataclass(frozen=True, kw_only=True)
class _TopTable:
    """The lists of the file."""

    targets: Annotated[tuple[Text, ...], MinLen(1), Expected("a list of at least one target")] = (HOST,)
    precisions: Annotated[
        tuple[Precision, ...],
        MinLen(1),
        Expected(f"a list of {', '.join(repr(p.value) for p in Precision)}"),
    ] = (Precision.FP32,)


@dataclass(frozen=True, kw_only=True)
class _ModelTable:
    """One of ``[[models]]``, as it is in the file."""

    name: Name | None = None
    model: Text
    arch: Text | None = None
    arch_kwargs: dict[str, Keyword] | None = None
    weights: Text | None = None
    weights_key: Text | None = None
    input_shape: InputShape | None = None
    calibration: Text
    labels: Text | None = None


@dataclass(frozen=True, kw_only=True)
class _BudgetTable:
    """One of ``[[budgets]]``, as it is in the file."""

    name: Name
    ratio: Ratio | None = None
    max_latency: _Latency = None
    max_size: _Bytes = None
    max_memory: _Bytes = None
    max_drop: _Points = None


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """``[options]``: those of ``compress`` for all cells. ``threads`` are those of each cell, so that results
    do not depend on how many cells run at once."""

    seed: Seed = 0
    threads: Threads = 1
    effort: Effort = Effort.NORMAL
    max_images: _Images | None = None
    held_out: _HeldOut = 0.25
    criterion: Text | None = None
    rounds: bool = True
    drop_blocks: bool = True
    finetune: _Training = None
    task: Task = Task.AUTO
    metric: Text | None = None
    boxes: BoxFormat | None = None
    attention_unit: AttentionUnit = AttentionUnit.HEAD_DIMENSIONS
    prune_normalized: bool = False
    width_quantum: _Quantum | None = None
    batch_size: _Batch | None = None
    pictures: bool = True


@dataclass(frozen=True, kw_only=True)
class SweepModel:
    """A network of a sweep with its images; paths are absolute or count from the current folder."""

    name: str
    model: str
    calibration: str
    arch: str | None = None
    arch_kwargs: dict[str, Keyword] | None = None
    weights: str | None = None
    weights_key: str | None = None
    input_shape: tuple[int, ...] | None = None
    labels: str | None = None
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True, kw_only=True)
class SweepBudget:
    """A share of MACs to cut, limits, or neither, which is the default of ``compress``."""

    name: str = "default"
    ratio: float | None = None
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a sweep file says."""

    source: Path
    models: tuple[SweepModel, ...]
    targets: tuple[str, ...]
    budgets: tuple[SweepBudget, ...]
    precisions: tuple[Precision, ...]
    settings: SweepSettings
    devices: tuple[SweepDevice, ...] = ()

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.models) * len(self.targets) * len(self.budgets) * len(self.precisions)


def read_sweep(path: str | Path) -> SweepPlan:
    """Read a sweep file.

    Raises:
        UsageError: no such file, no TOML, an unknown or missing key, or a value that is not accepted; names
            the key, what was given and what is accepted.
    """
    source = Path(path).absolute()
    try:
        table = read_toml(source)
    except UnreadableError as error:
        raise UsageError(f"sweep {str(path)!r} {error}; docs/sweep.md shows one") from error
    try:
        return _plan_of(source, table)
    except TableError as error:
        raise UsageError(f"sweep {str(path)!r} {error}") from error


def _plan_of(file: Path, table: dict[str, Any]) -> SweepPlan:
    """The plan of a whole file.

    Raises:
        TableError: a key or value that is not accepted.
    """
    others = ("models", "budgets", "options", "devices")
    tables = {name: table.pop(name) for name in others if name in table}
    top = from_table(_TopTable, table, hyphens=True, apart=others)
    models = _tables(tables.get("models", []), "models")
    if not models:
        raise TableError("lacks the key 'models'; add a [[models]] table")
    settings = tables.get("options", {})
    if not isinstance(settings, dict):
        raise TableError("has 'options' that is no table; write [options]")
    plan = SweepPlan(
        source=file,
        models=tuple(_model(file, place, each) for place, each in enumerate(models)),
        targets=tuple(beside(file, t) if t.endswith(".toml") else t for t in top.targets),
        budgets=tuple(map(_budget, *_counted(_tables(tables.get("budgets", []), "budgets"))))
        or (SweepBudget(),),
        precisions=top.precisions,
        settings=_settings(file, settings),
        devices=read_devices(file, _tables(tables.get("devices", []), "devices"), top.targets),
    )
    _check_distinct("models", [model.name for model in plan.models])
    _check_distinct("budgets", [budget.name for budget in plan.budgets])
    _check_distinct("devices", [device.name for device in plan.devices])
    _check_distinct("targets", [*plan.targets])
    _check_distinct("precisions", [precision.value for precision in plan.precisions])
    if plan.count > MOST_CELLS:
        raise TableError(f"asks for {plan.count:,} cells; accepted are at most {MOST_CELLS:,}")
    return plan


def _counted(tables: list[dict[str, Any]]) -> tuple[range, list[dict[str, Any]]]:
    return range(len(tables)), tables


def _tables(found: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise TableError(f"has {name!r} that are no tables; write [[{name}]], once for each")
    return found


def _model(source: Path, place: int, table: dict[str, Any]) -> SweepModel:
    where = f"models[{place}]."
    asked = table.pop("preprocessing", {})
    if not isinstance(asked, dict):
        raise TableError(f"has {where}preprocessing that is no table; write [models.preprocessing]")
    read = from_table(_ModelTable, table, inside=where, hyphens=True, apart=("preprocessing",))
    options = from_table(PreprocessingWithCard, asked, inside=f"{where}preprocessing.", hyphens=True)
    network, images = beside(source, read.model), beside(source, read.calibration)
    for key, path in (("model", network), ("calibration", images)):
        if ":" not in path and not Path(path).exists():
            raise TableError(
                f"has '{where}{key}' = {in_short(getattr(read, key))}, and there is no such file"
            )
    own = Path(read.model.rpartition(":")[2]).stem.replace("_", "-")
    if read.name is None and NAME.fullmatch(own) is None:
        raise TableError(f"lacks the key '{where}name', and {in_short(read.model)} gives none; add it")
    card = options.card
    named = options.options(card=beside(source, card) if card and card.endswith(".toml") else card)
    try:
        inputs = resolve_preprocessing(images, named)
        if inputs is not None:
            check_preprocessing(inputs)
    except EdgepruneError as error:
        raise TableError(f"has '{where}preprocessing' that is not accepted: {error}") from error
    return SweepModel(
        name=read.name or own,
        model=network,
        calibration=images,
        arch=_path(source, read.arch),
        arch_kwargs=read.arch_kwargs,
        weights=_path(source, read.weights) if _is_file(source, read.weights) else read.weights,
        weights_key=read.weights_key,
        input_shape=None if read.input_shape is None else parse_input_shape(read.input_shape),
        labels=_path(source, read.labels),
        preprocessing=inputs,
    )  # fmt: skip


def _path(source: Path, given: str | None) -> str | None:
    return None if given is None else beside(source, given)


def _is_file(source: Path, given: str | None) -> bool:
    """Whether weights are a file and not one of the names of their library."""
    return given is not None and (source.parent / given).is_file()


def _budget(place: int, table: dict[str, Any]) -> SweepBudget:
    read = from_table(_BudgetTable, table, inside=f"budgets[{place}].", hyphens=True)
    limited = parse_budget(read.max_latency, read.max_size, read.max_memory, read.max_drop)
    return SweepBudget(name=read.name, ratio=read.ratio, budget=limited)


def _settings(source: Path, table: dict[str, Any]) -> SweepSettings:
    read = from_table(SweepSettings, table, inside="options.", hyphens=True)
    values = {f.name: getattr(read, f.name) for f in fields(read)}
    code = {
        name: beside(source, v) for name in ("criterion", "metric") if (v := values[name]) and ".py:" in v
    }
    training = None if read.finetune is None else parse_finetune(read.finetune, option="options.finetune")
    return SweepSettings(**{**values, **code, "finetune": training})


def _check_distinct(key: str, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TableError(f"has {in_short(twice)} twice in {key!r}; accepted is each once")
