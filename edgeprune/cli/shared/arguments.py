"""Shared arguments of commands, one frozen dataclass per subject, and commands built from them.

A command's options are the fields of its arguments in order, as declared in ``cli.shared.options`` (a
subclass lists its bases from last to first, since fields of the last base come first), and those that the
options of its run declare themselves (:class:`~edgeprune.options.cli_option.CliOption`).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from edgeprune.artifacts.budget import Budget
from edgeprune.cli.process import settings
from edgeprune.cli.process.session import Session, begin
from edgeprune.cli.process.sources import take_file
from edgeprune.cli.process.variables import environment_name
from edgeprune.cli.shared import image_options as images
from edgeprune.cli.shared import options as opt
from edgeprune.options.cards import PreprocessingOptions
from edgeprune.options.cli_option import CliOption, Completion, Panel
from edgeprune.options.project_file import ProjectConfig, parse_input_shape
from edgeprune.options.quantities import parse_budget, parse_duration

if TYPE_CHECKING:
    from edgeprune.artifacts.calibration import Preprocessing


@dataclass(frozen=True, kw_only=True)
class SpokenArguments:
    """Output format and verbosity of a command."""

    as_json: opt.AsJson = False
    verbose: opt.Verbose = 0
    quiet: opt.Quiet = False


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """The network to load."""

    model: opt.Model
    arch: opt.Arch = None


@dataclass(frozen=True, kw_only=True)
class ShapeArguments(ModelArguments):
    """The network and the shape of its input."""

    input_shape: opt.InputShape = None

    def shape_or(self, config: ProjectConfig) -> tuple[int, ...] | None:
        """The shape, or that of the project file.

        Raises:
            UsageError: it is not the shape of an image.
        """
        return config.input_shape if self.input_shape is None else parse_input_shape(self.input_shape)


@dataclass(frozen=True, kw_only=True)
class DataArguments:
    """The calibration images, and how they become the input."""

    calibration: opt.Calibration = None
    labels: opt.Labels = None
    card: images.Card = None
    resize: images.Resize = None
    crop: images.Crop = None
    letterbox: images.Letterbox = None
    pad: images.Pad = None
    exif: images.Exif = None
    ground: images.GroundOption = None
    mean: images.Mean = None
    std: images.Std = None
    channel_order: images.Order = None

    def preprocessing(self, data: str, config: ProjectConfig) -> Preprocessing | None:
        """Of ``data``; see :func:`settings.choose_preprocessing`."""
        apart = {"mean", "std"}  # texts yet
        names = [field.name for field in fields(PreprocessingOptions) if field.name not in apart]
        asked = PreprocessingOptions(**{name: getattr(self, name) for name in names})
        return settings.choose_preprocessing(data, asked, self.mean, self.std, config)

    def labels_or(self, config: ProjectConfig) -> str | None:
        """The file of labels, or that of the project file, which belongs to the data named there."""
        return settings.first_given(self.labels, config.labels if self.calibration is None else None)


@dataclass(frozen=True, kw_only=True)
class BudgetArguments:
    """Limits of a search."""

    max_latency: opt.MaxLatency = None
    max_size: opt.MaxSize = None
    max_memory: opt.MaxMemory = None
    max_drop: opt.MaxDrop = None

    @property
    def budget(self) -> Budget:
        """All limits; may be empty.

        Raises:
            UsageError: a limit cannot be parsed.
        """
        return parse_budget(self.max_latency, self.max_size, self.max_memory, self.max_drop)


@dataclass(frozen=True, kw_only=True)
class TimeArguments:
    """For how long the work may go on."""

    max_time: opt.MaxTime = None

    @property
    def max_time_s(self) -> float | None:
        """Seconds of ``--max-time``.

        Raises:
            UsageError: it is not a time.
        """
        return None if self.max_time is None else parse_duration(self.max_time, option="--max-time")


@dataclass(frozen=True, kw_only=True)
class MachineArguments:
    """Random seed and number of threads."""

    seed: opt.Seed = None
    threads: opt.Threads = None

    def seed_or(self, config: ProjectConfig) -> int:
        """The seed, or that of the project file, or 0."""
        return self.seed if self.seed is not None else config.seed or 0

    def threads_or(self, config: ProjectConfig) -> int | None:
        """The threads, or those of the project file."""
        return self.threads or config.threads


@dataclass(frozen=True, kw_only=True)
class TimeoutArguments:
    """Time limit of a single run of an untrusted model."""

    timeout: opt.Timeout = opt.RUN_TIMEOUT

    @property
    def timeout_s(self) -> float:
        """Seconds of ``--timeout``.

        Raises:
            UsageError: it is not a time.
        """
        return parse_duration(self.timeout, option="--timeout")


@dataclass(frozen=True, kw_only=True)
class NetworkArguments(DataArguments, ShapeArguments):
    """The network and its calibration images."""

    def settled(self, session: Session, config: ProjectConfig) -> dict[str, Any]:
        """Options, by name, that also depend on the project file or the data."""
        shape = self.shape_or(config)
        data = settings.choose_calibration(self.calibration, self.model, config, session)
        return {
            "arch": settings.first_given(self.arch, config.arch),
            "input_shape": shape,
            "calibration": data,
            "labels": self.labels_or(config),
            "preprocessing": self.preprocessing(data, config),
        }


Arguments = TypeVar("Arguments", bound=SpokenArguments)
_MODELS = frozenset({"model", "first"})
"""Arguments that name a file beside which a project file may lie."""
_NO_TORCH = SimpleNamespace(Module=object)
"""In place of ``torch.nn``, which annotations name and the command line does without."""
_COMPLETIONS = {
    Completion.CRITERIA: opt.complete_criterion,
    Completion.TARGETS: opt.complete_target,
}


def _with_declared(kind: type[Arguments], run: type[Any]) -> type[Arguments]:
    """``kind`` with a field for every option that the options of a run declare and it has not."""
    own = {field.name for field in fields(kind)}
    hints = get_type_hints(run, include_extras=True, localns={"nn": _NO_TORCH})
    declared = []
    for option in fields(run):
        told = next((t for t in get_args(hints[option.name]) if isinstance(t, CliOption)), None)
        if told is not None and option.name not in own:
            hint = get_args(hints[option.name])[0] if told.kind is None else told.kind
            infos = (_typer_option(option.name, told),)
            declared.append((option.name, Annotated[(hint, *infos)], field(default=option.default)))
    return make_dataclass(kind.__name__, declared, bases=(kind,), frozen=True, kw_only=True)


def _panel_order(hint: Any) -> int:
    """Place of an option's panel; arguments, which have none, come first."""
    info = next(part for part in get_args(hint) if isinstance(part, (ArgumentInfo, OptionInfo)))
    panel = info.rich_help_panel
    return list(Panel).index(Panel(panel)) if panel else -1


def _typer_option(name: str, told: CliOption) -> OptionInfo:
    complete = None if told.completion is None else _COMPLETIONS[told.completion]
    info: OptionInfo = typer.Option(
        told.spelling(name),
        *([] if told.short is None else [told.short]),
        metavar=told.metavar,
        parser=told.reader(name),
        help=told.help,
        autocompletion=complete,
        rich_help_panel=told.panel.value,
    )
    return info


def _hints(kind: type[Any]) -> list[tuple[Field[Any], Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return [(field, hints[field.name]) for field in fields(kind)]


def _settable(name: str, hint: Any) -> Any:
    """The annotation with the environment and the project file as further sources."""
    kind, *told = get_args(hint)
    made = []
    for declared in told:
        info = copy.copy(declared)
        if isinstance(info, OptionInfo) and (variable := environment_name(name)) is not None:
            info.envvar, info.show_envvar = variable, False
        elif isinstance(info, ArgumentInfo) and name in _MODELS:
            info.is_eager, info.callback = True, take_file
        made.append(info)
    return Annotated[(kind, *made)]


Options = TypeVar("Options")


def joined(kind: type[Options], given: object, *positional: object, **settled: Any) -> Options:
    """Options of a run: those in ``settled``, and all others from ``given`` under the same name.

    Raises:
        TypeError: an option is in neither, and would silently have its default.
    """
    names = {field.name for field in fields(kind) if field.kw_only}  # type: ignore[arg-type]
    own = {name: getattr(given, name) for name in names - settled.keys() if hasattr(given, name)}
    if missing := sorted(names - own.keys() - settled.keys()):
        raise TypeError(f"{kind.__name__}: nobody gives {', '.join(missing)}")
    return kind(*positional, **own, **settled)


def command(
    asked: type[Arguments], run: type[Any] | None = None
) -> Callable[[Callable[[Session, Arguments], None]], Callable[..., None]]:
    """Turn a function of the session and one arguments object into a Typer command.

    Its options are the fields of ``asked``, and those that ``run``, the options of a run, declares.
    """
    kind = asked if run is None else _with_declared(asked, run)

    def decorate(function: Callable[[Session, Arguments], None]) -> Callable[..., None]:
        def call(context: typer.Context, **given: Any) -> None:
            arguments = kind(**given)
            function(begin(context, arguments.verbose, arguments.quiet), arguments)

        hints = {f.name: _settable(f.name, hint) for f, hint in _hints(kind)}
        parameters = [
            inspect.Parameter(
                f.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if f.default is MISSING else f.default,
                annotation=hints[f.name],
            )
            for f in sorted(fields(kind), key=lambda f: _panel_order(hints[f.name]))
        ]
        own = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        call.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
        call.__annotations__ = {"context": typer.Context, **{f.name: hints[f.name] for f in fields(kind)}}
        call.__name__, call.__doc__ = function.__name__, function.__doc__
        return call

    return decorate
