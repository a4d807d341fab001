"""Options of a run, one frozen dataclass per subject; they define the signatures of the Python API."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_type_hints

from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.choices import (
    DEFAULT_CRITERION,
    GAME_MEMORY_BYTES,
    HOST,
    AttentionUnit,
    BoxFormat,
    CouplingOptions,
    Effort,
    Finetune,
    RankedPlayers,
    Task,
)
from edgeprune.artifacts.model import InputShape, InputShapes
from edgeprune.artifacts.quantization import Precision, RangeMethod
from edgeprune.limits import RUN_TIMEOUT_S
from edgeprune.options.devices import DeviceOptions

if TYPE_CHECKING:
    from torch import nn

Parameters = ParamSpec("Parameters")
Options = TypeVar("Options")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The network: a file, a name such as ``torchvision:NAME`` or a module, and how it is read."""

    model: str | Path | nn.Module = field(kw_only=False)
    arch: str | None = None
    arch_kwargs: Mapping[str, int | float | bool | str] | None = None
    weights: str | None = None
    weights_key: str | None = None
    trust_pickle: bool = False
    input_shape: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """The images, and how they become the input."""

    calibration: str | Path | None
    labels: str | Path | None = None
    preprocessing: Preprocessing | None = None
    max_images: int | None = None
    held_out: float = 0.25


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the network is for, which decides how its quality is measured.

    ``metric``: ``file.py:function`` of the user in place of a built-in measure. ``boxes``: how a detector's
    boxes are given; inferred where ``None``.
    """

    task: Task = Task.AUTO
    metric: str | None = None
    boxes: BoxFormat | None = None


@dataclass(frozen=True, kw_only=True)
class PlayerOptions:
    """Which channels may be removed."""

    attention_unit: AttentionUnit = AttentionUnit.HEAD_DIMENSIONS
    prune_normalized: bool = False

    @property
    def coupling(self) -> CouplingOptions:
        """Options of the coupling analysis."""
        return CouplingOptions(attention=self.attention_unit, prune_normalized=self.prune_normalized)


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """Effort, time limit, random seed and number of threads."""

    effort: Effort = Effort.NORMAL
    max_time_s: float | None = None
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go; ``command`` is the command line recorded in a manifest."""

    output: str | Path | None = None
    overwrite: bool = False
    resume: bool = False
    command: str = ""

    @property
    def folder(self) -> Path | None:
        """``output`` as a path."""
        return None if self.output is None else Path(self.output)


@dataclass(frozen=True, kw_only=True)
class CompressOptions(
    ModelOptions, CalibrationOptions, TaskOptions, PlayerOptions, WorkOptions, OutputOptions
):
    """All options of a compression; see :func:`edgeprune.compress`."""

    target: str = HOST
    ratio: float | None = None
    budget: Budget = field(default_factory=Budget)
    finetune: Finetune | None = None
    recipe: str | None = None
    drop_blocks: bool = True
    rounds: bool = True
    ranking: str | Path | None = None
    criterion: str | None = None
    precision: Precision = Precision.FP32
    width_quantum: int | None = None
    batch_size: int | None = None
    device: DeviceOptions | None = None
    pictures: bool = True

    @property
    def ranking_path(self) -> Path | None:
        """``ranking`` as a path."""
        return None if self.ranking is None else Path(self.ranking)


@dataclass(frozen=True, kw_only=True)
class RankOptions(ModelOptions, CalibrationOptions, PlayerOptions, WorkOptions, OutputOptions):
    """All options of a ranking; see :func:`edgeprune.rank`."""

    criteria: tuple[str, ...] = (DEFAULT_CRITERION,)
    layers: tuple[str, ...] = ()
    ratio: float | None = None
    max_evaluations: int | None = None
    players: RankedPlayers = RankedPlayers.CHANNELS
    memory_limit_bytes: int = GAME_MEMORY_BYTES
    recover_at: tuple[float, ...] = ()

    def of_run(self) -> CompressOptions:
        """Options shared with a compression, for the stages that both run."""
        both = {f.name for f in fields(self)} & {f.name for f in fields(CompressOptions)}
        return CompressOptions(**{name: getattr(self, name) for name in both})


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(CalibrationOptions, TaskOptions):
    """Options of the quantization of an ONNX file; see :func:`edgeprune.quantize`."""

    onnx_path: str | Path = field(kw_only=False)
    output: str | Path
    input_shape: tuple[int, ...] | None = None
    batch_size: int | None = None
    precision: Precision = Precision.INT8
    target: str = HOST
    device: DeviceOptions | None = None
    method: RangeMethod = RangeMethod.MSE
    max_drop_points: float | None = None
    kept_float: tuple[str, ...] = ()
    timeout_s: float = RUN_TIMEOUT_S
    threads: int | None = None
    seed: int = 0
    overwrite: bool = False

    @property
    def source(self) -> Path:
        """``onnx_path`` as a path."""
        return Path(self.onnx_path)

    @property
    def file(self) -> Path:
        """``output`` as a path."""
        return Path(self.output)


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of the comparison of two models; see :func:`edgeprune.verify`."""

    first: str | Path = field(kw_only=False)
    second: str | Path | None = field(kw_only=False, default=None)
    calibration: str | Path
    labels: str | Path | None = None
    preprocessing: Preprocessing | None = None
    arch: str | None = None
    arch_kwargs: Mapping[str, int | float | bool | str] | None = None
    weights: str | None = None
    weights_key: str | None = None
    trust_pickle: bool = False
    max_images: int = 64
    tolerance: float = 1e-3
    target: str = HOST
    emulate: bool = False
    timeout_s: float = RUN_TIMEOUT_S
    threads: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class InspectOptions(PlayerOptions):
    """Options of the inspection of a network; see :func:`edgeprune.inspect`."""

    model: str | Path | nn.Module = field(kw_only=False)
    arch: str | None = None
    arch_kwargs: Mapping[str, int | float | bool | str] | None = None
    weights: str | None = None
    weights_key: str | None = None
    trust_pickle: bool = False
    input_shape: InputShape | InputShapes | None = None
    calibration: str | Path | None = None
    graph: str | Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """Options of profiling an ONNX file; see :func:`edgeprune.profile`."""

    onnx_path: str | Path = field(kw_only=False)
    target: str = HOST
    device: DeviceOptions | None = None
    result: str | Path | None = None
    baseline: str | Path | None = None
    input_shape: tuple[int, ...] | None = None
    threads: int | None = None
    batch_size: int = 1
    seed: int = 0
    timeout_s: float = RUN_TIMEOUT_S


def called_with(
    kind: Callable[Parameters, Options],
) -> Callable[[Callable[[Options], Result]], Callable[Parameters, Result]]:
    """Decorator that lets a function of an options object be called with the arguments of ``kind``.

    Type checkers and ``inspect.signature`` see the signature of ``kind``.
    """

    def decorate(function: Callable[[Options], Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
            _check_names(function.__name__, kind, options)
            return function(kind(*arguments, **options))

        from torch import nn  # needed for annotations only, and already loaded when functions are decorated

        hints = get_type_hints(kind, localns={"nn": nn})
        hints |= {"return": get_type_hints(function)["return"]}
        given = inspect.signature(kind)
        call.__signature__ = given.replace(  # type: ignore[attr-defined]
            parameters=[p.replace(annotation=hints[p.name]) for p in given.parameters.values()],
            return_annotation=hints["return"],
        )
        call.__annotations__ = {**{name: hints[name] for name in given.parameters}, "return": hints["return"]}
        return call

    return decorate


def _check_names(function: str, kind: Callable[..., Any], options: dict[str, Any]) -> None:
    known = list(inspect.signature(kind).parameters)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; accepted are {', '.join(known)}"
            raise TypeError(f"{function}() has no option {name!r}{hint}")
