"""Options of a command; they define the signatures of the Python API and most of the command line.

A field with a :class:`CliOption` is an option of the command line, its environment variable and its key in
``edgeprune.toml``, too; the command line adds the others itself (``cli/``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgeprune import limits
from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.choices import DEFAULT_CRITERION, GAME_MEMORY_BYTES, HOST, Finetune, RankedPlayers
from edgeprune.artifacts.model import InputShape, InputShapes
from edgeprune.artifacts.quantization import Precision, RangeMethod
from edgeprune.limits import RUN_TIMEOUT_S
from edgeprune.options.bounds import Bounds, Seed, Threads, TimeoutS
from edgeprune.options.cli_option import CliOption, Completion, Panel
from edgeprune.options.devices import DeviceOptions
from edgeprune.options.subjects import (
    CacheOptions,
    CalibrationOptions,
    ConstantOptions,
    ModelOptions,
    OutputOptions,
    PlayerOptions,
    TaskOptions,
    WeightsOptions,
    WorkerOptions,
    WorkOptions,
)

if TYPE_CHECKING:
    from torch import nn


_FIXED_BATCH = CliOption(
    metavar="N",
    limit=limits.BATCH_SIZE,
    help="Fix the batch size of the ONNX file that is written. Default: as the file given, else dynamic.",
    panel=Panel.GOAL,
)


@dataclass(frozen=True, kw_only=True)
class CompressOptions(
    ModelOptions,
    ConstantOptions,
    CalibrationOptions,
    TaskOptions,
    PlayerOptions,
    WorkOptions,
    WorkerOptions,
    CacheOptions,
    OutputOptions,
):
    """All options of a compression; see :func:`edgeprune.compress`."""

    target: str = HOST
    ratio: float | None = None
    budget: Budget = field(default_factory=Budget)
    finetune: Finetune | None = None
    recipe: Annotated[
        str | None,
        CliOption(
            metavar="FILE.py:FUNCTION",
            help="After recovery, train with your own function: it is called with the pruned network, of "
            "your own class where that allows it, and trains it in place.",
            panel=Panel.GOAL,
        ),
    ] = None
    drop_blocks: Annotated[
        bool,
        CliOption(
            flags="--drop-blocks/--keep-blocks",
            help="With a limit on costs: also try the network without some residual blocks, or keep them "
            "all.",
            panel=Panel.GOAL,
        ),
    ] = True
    rounds: Annotated[
        bool,
        CliOption(
            flags="--rounds/--one-round",
            help="Beyond 30% of the MACs: rank channels anew once a part is gone and recovered, or all at "
            "once, which is sooner and worse.",
            panel=Panel.GOAL,
        ),
    ] = True
    ranking: Annotated[
        str | Path | None,
        CliOption(
            metavar="FOLDER",
            kind=Path | None,
            help="Go by what 'edgeprune rank' wrote for this model and these images instead of ranking "
            "again.",
            panel=Panel.GOAL,
        ),
    ] = None
    criterion: Annotated[
        str | None,
        CliOption(
            metavar="NAME",
            help="Rank by this criterion ('edgeprune rank' compares them), or by your own, "
            "path/to/file.py:NAME; with --ranking, go by this one of it. Default: hybrid, else the first one "
            "there.",
            completion=Completion.CRITERIA,
            panel=Panel.GOAL,
        ),
    ] = None
    precision: Annotated[
        Precision | None,
        CliOption(
            metavar="|".join(p.value for p in Precision),
            help="How the delivered file is stored; in 8 or 16 bits the 32-bit file is kept beside it. "
            "Default: fp32; without a ratio or limit 8 bits are tried, too.",
            panel=Panel.GOAL,
        ),
    ] = None
    width_quantum: Annotated[
        int | None,
        CliOption(
            metavar="N",
            limit=limits.WIDTH_QUANTUM,
            help="Round layer widths to multiples of this. Default: the target's.",
            panel=Panel.GOAL,
        ),
    ] = None
    batch_size: Annotated[int | None, _FIXED_BATCH] = None
    device: DeviceOptions | None = None
    pictures: Annotated[
        bool,
        CliOption(
            flags="--pictures/--no-pictures",
            help="Put small pictures of calibration images into report.html, or keep them out of it.",
            panel=Panel.RUN,
        ),
    ] = True

    @property
    def ranking_path(self) -> Path | None:
        """``ranking`` as a path."""
        return None if self.ranking is None else Path(self.ranking)

    @property
    def stored_in(self) -> Precision:
        """``precision``, or the one that holds where none was asked for."""
        return Precision.FP32 if self.precision is None else self.precision


@dataclass(frozen=True, kw_only=True)
class RankOptions(
    ModelOptions,
    ConstantOptions,
    CalibrationOptions,
    PlayerOptions,
    WorkOptions,
    WorkerOptions,
    CacheOptions,
    OutputOptions,
):
    """All options of a ranking; see :func:`edgeprune.rank`."""

    criteria: tuple[str, ...] = (DEFAULT_CRITERION,)
    layers: tuple[str, ...] = ()
    ratio: float | None = None
    max_evaluations: Annotated[
        int | None,
        CliOption(
            metavar="N",
            limit=limits.EVALUATIONS,
            help="Most batch passes that each criterion may make. Default: what it takes for a good "
            "estimate.",
            panel=Panel.GOAL,
        ),
    ] = None
    players: RankedPlayers = RankedPlayers.CHANNELS
    memory_limit_bytes: Annotated[
        int, Bounds(limits.WholeNumbers(least=1, most=2**62), "memory_limit_bytes")
    ] = GAME_MEMORY_BYTES
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
    batch_size: Annotated[int | None, _FIXED_BATCH] = None
    precision: Precision = Precision.INT8
    target: str = HOST
    device: DeviceOptions | None = None
    method: RangeMethod = RangeMethod.MSE
    max_drop_points: float | None = None
    kept_float: tuple[str, ...] = ()
    timeout_s: TimeoutS = RUN_TIMEOUT_S
    threads: Threads = None
    seed: Seed = 0
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
class VerifyOptions(WeightsOptions):
    """Options of the comparison of two models; see :func:`edgeprune.verify`."""

    first: str | Path = field(kw_only=False)
    second: str | Path | None = field(kw_only=False, default=None)
    calibration: str | Path
    labels: str | Path | None = None
    preprocessing: Preprocessing | None = None
    max_images: Annotated[
        int,
        CliOption(
            metavar="N",
            limit=replace(limits.IMAGES, least=2),
            help="Compare on at most so many images.",
            panel=Panel.DATA,
        ),
    ] = 64
    tolerance: Annotated[
        float,
        CliOption(
            metavar="SHARE",
            limit=limits.TOLERANCE,
            help="Largest error of an output, over the largest output, that passes.",
            panel=Panel.GOAL,
        ),
    ] = 1e-3
    target: str = HOST
    emulate: Annotated[
        bool,
        CliOption(
            metavar="",
            help="Compare the .onnx file A here with itself on an emulated core of --target: the same "
            "results on its instruction set? Needs qemu-user; fetches 60 MB once.",
            panel=Panel.GOAL,
        ),
    ] = False
    timeout_s: TimeoutS = RUN_TIMEOUT_S
    threads: Threads = None
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class InspectOptions(PlayerOptions, WeightsOptions):
    """Options of the inspection of a network; see :func:`edgeprune.inspect`."""

    model: str | Path | nn.Module = field(kw_only=False)
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
    result: Annotated[
        str | Path | None,
        CliOption(
            metavar="RESULT.json",
            kind=Path | None,
            help="Times of this file that run.sh of a bundle wrote on a device, in place of a measurement.",
            panel=Panel.GOAL,
        ),
    ] = None
    baseline: Annotated[
        str | Path | None,
        CliOption(
            metavar="OTHER.onnx",
            kind=Path | None,
            help="Compare with this ONNX file by interleaved pairs of runs.",
            panel=Panel.GOAL,
        ),
    ] = None
    input_shape: tuple[int, ...] | None = None
    threads: Threads = None
    batch_size: Annotated[
        int,
        CliOption(metavar="N", limit=limits.BATCH_SIZE, help="Images in a batch.", panel=Panel.GOAL),
    ] = 1
    seed: Seed = 0
    timeout_s: TimeoutS = RUN_TIMEOUT_S
