"""State of a run across its stages: options, notes and times, and the artifacts of each part."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import nn
from torch.fx import GraphModule

from edgeprune import parity
from edgeprune.accelerator import CPU, moved
from edgeprune.artifacts.budget import BudgetSection
from edgeprune.artifacts.calibration import CalibrationSet
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.latency import StageTime
from edgeprune.artifacts.model import CapturedModel, LoadedModel
from edgeprune.artifacts.pruning import DistillationReport, PruningPlan, Ranking, RecoveryReport
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.artifacts.report import ParityFigure, Usability
from edgeprune.caching.store import Store
from edgeprune.capture.joining import as_joined
from edgeprune.commands.run.fingerprints import images_sha256, network_sha256
from edgeprune.devices.connection import Device
from edgeprune.devices.runner import runner_on
from edgeprune.evaluation.base import Measure
from edgeprune.evaluation.registry import measure_for
from edgeprune.executors.units import Executor
from edgeprune.games.block_game import ResidualBlock
from edgeprune.importance.journals import Journals
from edgeprune.notes import tell
from edgeprune.options.runs import CompressOptions
from edgeprune.profiling.measurer import RunSettings
from edgeprune.profiling.runner import Runner
from edgeprune.recovery.splitting import SplitImages, split_images
from edgeprune.storage.sessions import Sessions
from edgeprune.system import progress
from edgeprune.system.memory import give_back_freed_memory
from edgeprune.targets import TargetProfile

_log = logging.getLogger("edgeprune.commands")

PARITY_IMAGES = 64
"""On which neighbours of the chain are held against each other."""


_LONG_STAGE_S = 10.0
"""Behind a longer stage garbage is collected, which takes 0.3 s: graphs that refer to themselves hold what
they computed until then, 1.1 GB behind a ranking of a ResNet-50 at 224 pixels."""


@dataclass
class Run:
    """Options, notes and stage times of a run; artifacts are passed between stages, not stored here.

    ``journals``: storage of stage results in a run for one plan; ``None`` if they are not stored.
    ``limits_by_default``: the budget is the default, not requested by the user.
    ``measure``: of the task, on the held-out images; ``None`` until :func:`measure_of` makes it.
    ``device``: what measures in place of this machine; ``None`` where nothing is connected.
    ``cache``: of results shared between runs; ``None`` without one.
    ``executor``: what batches of a ranking run on; ``None`` in this process.
    ``sessions``: stage times of earlier interrupted sessions; ``None`` until known.
    """

    options: CompressOptions
    notes: list[str] = field(default_factory=list)
    times: list[StageTime] = field(default_factory=list)
    journals: Journals | None = None
    limits_by_default: bool = False
    sessions: Sessions | None = None
    measure: Measure | None = None
    device: Device | None = None
    cache: Store | None = None
    executor: Executor | None = None
    clock: Callable[[], float] = time.monotonic
    began_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock of the run."""
        self.began_s = self.clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self.began_s

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage, and log and display that it runs."""
        _log.info("%s", name)
        started = time.perf_counter()
        try:
            with progress.stage(name):
                yield
                if time.perf_counter() - started > _LONG_STAGE_S:
                    gc.collect()
                give_back_freed_memory()
        finally:  # the time of an interrupted stage counts, too
            self.times.append(StageTime(stage=name, duration_s=time.perf_counter() - started))
            if self.sessions is not None:
                self.sessions.keep(tuple(self.times))

    @property
    def times_of_all_sessions(self) -> tuple[StageTime, ...]:
        """Stage times, summed per stage over this session and earlier interrupted ones."""
        times = tuple(self.times)
        return times if self.sessions is None else self.sessions.with_earlier(times)

    @property
    def threads(self) -> int:
        """Threads of every timed or multi-threaded part."""
        return self.options.threads or torch.get_num_threads()

    def note(self, text: str) -> None:
        """Record a fallback, a warning or a fact for the log and the report."""
        tell(_log, text)
        self.notes.append(text)


def runner_of(run: Run, target: TargetProfile) -> Runner:
    """The target's runner, with the threads, the batch and the seed of the run."""
    how = RunSettings(threads=run.threads, batch_size=run.options.batch_size or 1, seed=run.options.seed)
    return runner_on(target, run.device, how)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The network whose channels are pruned: the original, or the original without some residual blocks.

    Node names are those of the original.
    """

    captured: CapturedModel
    coupling: CouplingGraph
    dropped: tuple[ResidualBlock, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model ready to be pruned, with its calibration data and target.

    ``stored_as``: integer format of the weights, simulated in ranking and recovery; ``None`` in 32 bits.
    ``device``: where networks run while they are ranked, recovered and trained.
    """

    loaded: LoadedModel
    calibration: CalibrationSet
    captured: CapturedModel
    coupling: CouplingGraph
    target: TargetProfile
    stored_as: IntegerFormat | None = None
    device: torch.device = CPU

    @property
    def given(self) -> nn.Module:
        """The user's own module, called with one tensor as the captured network is."""
        return as_joined(self.loaded.module, self.captured)

    @property
    def variant(self) -> Variant:
        """The original network, with all blocks."""
        return Variant(captured=self.captured, coupling=self.coupling)

    @cached_property
    def inputs_sha256(self) -> tuple[str, str]:
        """Hashes of the captured network and of the fitting images."""
        return network_sha256(self.captured), images_sha256(self.calibration.fitting)

    @cached_property
    def running(self) -> CapturedModel:
        """The original network on ``device``, to be run over many images."""
        return replace(self.captured, graph_module=moved(self.captured.graph_module, self.device))


def measure_of(run: Run, prepared: Prepared) -> Measure:
    """The measure of the run's task on the held-out images, against the original; made once.

    Raises:
        UsageError, CalibrationError: the outputs or images do not fit the task; see ``measure_for``.
    """
    if run.measure is None:
        held = prepared.calibration.held_out
        original = parity.run_torch(prepared.captured.graph_module, held.images)
        run.measure = measure_for(run.options, original, held, run.options.seed)
        for told in run.measure.notes:
            run.note(told)
    return run.measure


def split_for_recovery(run: Run, prepared: Prepared) -> SplitImages:
    """Images for fitting and for deciding in recovery and training: the same throughout a run."""
    generator = torch.Generator().manual_seed(run.options.seed)
    fitting = prepared.calibration.fitting
    return replace(split_images(fitting.images, generator), class_scores=fitting.class_scores)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The ranking and the resulting plan for the channels of ``variant``."""

    variant: Variant
    ranking: Ranking
    plan: PruningPlan
    ratio_asked_by: str
    search: BudgetSection | None = None


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """The pruned network before and after recovery, with the checks between.

    ``notes`` are those of a candidate, which the run does not have.
    """

    bare: GraphModule
    recovered: GraphModule
    recovery: RecoveryReport
    parity: tuple[ParityFigure, ...]
    finetuned: GraphModule | None = None
    distillation: DistillationReport | None = None
    notes: tuple[str, ...] = ()

    @property
    def final(self) -> GraphModule:
        """The network to export."""
        return self.recovered if self.finetuned is None else self.finetuned


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Quality by stage on the held-out images, the usability of the delivered network, and the outputs there
    of the original and of what is delivered."""

    kind: AccuracyKind
    figures: tuple[AccuracyFigure, ...]
    usability: Usability
    original_outputs: parity.Outputs
    delivered_outputs: parity.Outputs
