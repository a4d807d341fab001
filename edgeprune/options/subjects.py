"""Options by subject, which those of a command are joined from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from edgeprune import limits
from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.choices import (
    AttentionUnit,
    BoxFormat,
    ComputeDevice,
    CouplingOptions,
    Effort,
    ExecutorKind,
    Task,
)
from edgeprune.options.bounds import Bounds, Seed, Threads
from edgeprune.options.cli_option import CliOption, Panel
from edgeprune.options.keywords import parse_keywords

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """How a state_dict, a name or a pickle becomes a network."""

    arch: str | None = None
    arch_kwargs: Annotated[
        Mapping[str, int | float | bool | str] | None,
        CliOption(
            metavar="NAME=VALUE,...",
            kind=dict[str, Any] | None,
            parser=parse_keywords,
            help="Keyword arguments to build the architecture with, such as width=0.5,num_classes=10: "
            "numbers, true, false or text.",
            panel=Panel.MODEL,
        ),
    ] = None
    weights: Annotated[
        str | None,
        CliOption(
            metavar="NAME",
            help="Weights of a model given by name: a file, their name in torchvision or timm, or 'none' for "
            "random ones.",
            panel=Panel.MODEL,
        ),
    ] = None
    weights_key: Annotated[
        str | None,
        CliOption(
            metavar="KEY",
            help="Entry of a checkpoint that holds the weights, such as model_ema or state_dict.student: a "
            "path with dots, or what the keys begin with. Default: the first known name, averages last.",
            panel=Panel.MODEL,
        ),
    ] = None
    trust_pickle: Annotated[
        bool,
        CliOption(
            metavar="",
            help="Load a whole pickled module. A pickle runs code: only for files that you trust.",
            panel=Panel.MODEL,
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ModelOptions(WeightsOptions):
    """The network: a file, a name such as ``torchvision:NAME`` or a module, and how it is read."""

    model: str | Path | nn.Module = field(kw_only=False)
    input_shape: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ConstantOptions:
    """Inputs that are the same for every image: ``NAME=FILE.npy`` texts, or arrays and tensors by name."""

    constants: Annotated[
        Mapping[str, Any] | Sequence[str] | None,
        CliOption(
            flags="--input",
            metavar="NAME=FILE.npy",
            kind=list[str] | None,
            help="Give an input of the model, by the name in its forward method, the same array for every "
            "image; may be given several times. Inputs that differ by image come with the calibration data.",
            panel=Panel.MODEL,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """The images, and how they become the input."""

    calibration: Any  # a path, package.module:function or a Dataset; ``None`` is refused later
    labels: str | Path | None = None
    preprocessing: Preprocessing | None = None
    max_images: Annotated[
        int | None,
        CliOption(
            metavar="N",
            limit=limits.IMAGES,
            help="Use at most this many calibration images.",
            panel=Panel.DATA,
        ),
    ] = None
    held_out: Annotated[
        float,
        CliOption(
            metavar="SHARE",
            limit=limits.HELD_OUT,
            help="Share of the calibration images kept back to judge the result.",
            panel=Panel.DATA,
        ),
    ] = 0.25


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the network is for, which decides how its quality is measured.

    ``metric``: ``file.py:function`` of the user in place of a built-in measure. ``boxes``: how a detector's
    boxes are given; inferred where ``None``.
    """

    task: Annotated[
        Task,
        CliOption(
            help="What the network is for, in whose unit quality is measured: accuracy, AP of detections, "
            "mean IoU, absolute error, or nearest neighbours. auto: accuracy of class scores, relative error "
            "of all else.",
            panel=Panel.GOAL,
        ),
    ] = Task.AUTO
    metric: Annotated[
        str | None,
        CliOption(
            metavar="FILE.py:FUNCTION",
            help="Measure quality with your own function: it is called with the outputs (a list of arrays), "
            "the images and the labels or None, and returns a number, or one for every image; higher is "
            "better.",
            panel=Panel.GOAL,
        ),
    ] = None
    boxes: Annotated[
        BoxFormat | None,
        CliOption(
            help="With --task detection: whether a box is two corners or centre and size, and whether an "
            "objectness precedes its class scores. Default: told by the values.",
            panel=Panel.GOAL,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PlayerOptions:
    """Which channels may be removed."""

    attention_unit: Annotated[
        AttentionUnit,
        CliOption(
            help="What leaves an attention layer: channels of all its heads in step, or whole heads.",
            panel=Panel.GOAL,
        ),
    ] = AttentionUnit.HEAD_DIMENSIONS
    prune_normalized: Annotated[
        bool,
        CliOption(
            metavar="",
            help="Let channels go that a layer norm takes its statistics over (the residual stream of a "
            "transformer or ConvNeXt); it then does so over those that stay.",
            panel=Panel.GOAL,
        ),
    ] = False

    @property
    def coupling(self) -> CouplingOptions:
        """Options of the coupling analysis."""
        return CouplingOptions(attention=self.attention_unit, prune_normalized=self.prune_normalized)


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """Effort, time limit, random seed and number of threads."""

    effort: Annotated[
        Effort,
        CliOption(
            help="How much work goes into passes, images, rounds and training. quick is sooner and worse, "
            "thorough also fine-tunes what compress delivers.",
            panel=Panel.RUN,
        ),
    ] = Effort.NORMAL
    max_time_s: Annotated[float | None, Bounds(limits.TIME_S, "max_time_s")] = None
    compute_device: Annotated[
        ComputeDevice,
        CliOption(
            short="--device",
            help="Where the network runs while it is ranked, recovered and trained; auto: on a CUDA GPU if "
            "there is one. Latency is never measured there.",
            panel=Panel.RUN,
        ),
    ] = ComputeDevice.CPU
    seed: Seed = 0
    threads: Threads = None


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Where the batches of a ranking are computed; the result is the same."""

    workers: Annotated[
        int | None,
        CliOption(
            metavar="N",
            limit=limits.UNITS_AT_ONCE,
            help="Rank in so many processes, each of --threads threads. The result is the same as in one. "
            "Default: in this one.",
            panel=Panel.RUN,
        ),
    ] = None
    executor: Annotated[
        ExecutorKind,
        CliOption(
            help="Where the workers of a ranking are: processes of this machine, or a cluster of Ray, which "
            "needs pip install 'edgeprune[ray]'.",
            panel=Panel.RUN,
        ),
    ] = ExecutorKind.LOCAL
    ray_address: Annotated[
        str | None,
        CliOption(
            metavar="auto|HOST:PORT",
            help="With --executor ray: a cluster that runs. Default: one on this machine, for this run.",
            panel=Panel.RUN,
        ),
    ] = None

    @property
    def is_spread(self) -> bool:
        """Whether rankings run over workers."""
        return self.workers is not None or self.executor is not ExecutorKind.LOCAL


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Where results are that runs share."""

    cache: Annotated[
        str | Path | None,
        CliOption(
            metavar="FOLDER",
            kind=Path | None,
            help="Take what was computed of the same network and images (rankings, recovered networks) from "
            "this folder, and keep it there. The result is the same as without.",
            panel=Panel.RUN,
        ),
    ] = None

    @property
    def cache_path(self) -> Path | None:
        """``cache`` as a path."""
        return None if self.cache is None else Path(self.cache)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where results go; ``command`` is the command line recorded in a manifest."""

    output: str | Path | None = None
    overwrite: bool = False
    resume: Annotated[
        bool,
        CliOption(
            metavar="",
            help="Go on with a run that was stopped, from what it kept in OUTPUT.journal.",
            panel=Panel.RUN,
        ),
    ] = False
    command: str = ""

    @property
    def folder(self) -> Path | None:
        """``output`` as a path."""
        return None if self.output is None else Path(self.output)
