"""``--precision auto``: time pieces in 8 bits and choose the fastest mixture within the drop limit."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from edgeprune import parity
from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.quantization import IntegerReport, MixedReport, PieceRow, Precision
from edgeprune.evaluation.base import Measure
from edgeprune.evaluation.registry import measure_for
from edgeprune.options.subjects import TaskOptions
from edgeprune.outputs.units import relative_errors, units_of
from edgeprune.profiling.runner import Runner
from edgeprune.profiling.work import size_bytes
from edgeprune.quantization.int8 import Calibrated, calibrate, write_integers
from edgeprune.quantization.mixed_precision import (
    EXACT_PIECES,
    WORTH,
    ChainCosts,
    FidelityGame,
    Mixture,
    chain_costs,
    fastest,
    hold,
    improve,
    sensitivities,
    sensitivity_evaluations,
)
from edgeprune.quantization.segments import Segment, segments
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.storage.files import scratch_folder
from edgeprune.system import progress

DROP_POINTS = 1.0
"""What pieces in 8 bits may lose besides stored weights, where no limit is given and there is a measure."""
_JUDGED_IMAGES = 256
_HARM_IMAGES = 64
"""Enough to order pieces, whose harm differs by factors; what is accepted is judged on all."""
_TRIES = 6


def write_mixed(
    source: Path,
    destination: Path,
    images: ImageBatch,
    settings: IntegerSettings,
    *,
    runner: Runner,
    task: TaskOptions | None = None,
    max_drop_points: float | None = None,
) -> MixedReport:
    """Write the fastest mixture of 8 and 32 bits on the target within the drop limit on ``images``.

    Weights of pieces in 32 bits are stored in 8. Copies the file unchanged if those alone lose more than
    ``max_drop_points``, or do not make it smaller; without it, pieces in 8 bits may lose one point more than
    those. ``task`` says in whose unit the drop is. On other targets than this host
    times are predicted; where nothing is known of 8 bits there, all pieces are in 8 bits except those
    excluded by the drop limit.

    Raises:
        QuantizationError: the file cannot be quantized.
        DeviceError: nothing can be measured on the target.
    """
    known = runner.knows(Precision.AUTO)
    with scratch_folder() as scratch:
        work = Mixing.of(source, images, settings, scratch, task or TaskOptions(), runner)
        chosen = work.fastest() if known else (True,) * len(work.pieces)
        limit, harm = work.limit(max_drop_points), None
        if not work.holds(chosen, limit):
            chosen, harm = work.held(chosen, limit)
        if known:
            chosen = work.still_faster(chosen, limit)
        report = work.write_smaller(chosen, limit, destination)
        if report is None:
            chosen = work.nothing
    return MixedReport(
        pieces=tuple(work.row(place, chosen) for place in range(len(work.pieces))),
        measured=len(work.times),
        integer=report,
        harm=harm,
    )


@dataclass
class Mixing:
    """State of one selection: the pieces, their measurements, and files of mixtures, written on demand."""

    source: Path
    calibrated: Calibrated
    pieces: tuple[Segment, ...]
    judged: ImageBatch
    task: TaskOptions
    original: parity.Outputs
    folder: Path
    runner: Runner
    times: dict[Mixture, float] = field(default_factory=dict)
    losses: dict[Mixture, float] = field(default_factory=dict)
    costs: ChainCosts | None = None
    put_back: set[int] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        source: Path,
        images: ImageBatch,
        settings: IntegerSettings,
        folder: Path,
        options: TaskOptions,
        runner: Runner,
    ) -> Mixing:
        """Calibrate the model and split it into pieces; ``runner`` says what a mixture takes."""
        calibrated = calibrate(source, images.images, settings)
        judged = images.first(_JUDGED_IMAGES)
        return cls(
            source=source,
            calibrated=calibrated,
            pieces=segments(calibrated.model),
            judged=judged,
            task=options,
            original=parity.run_onnx(
                source, judged.images, threads=settings.threads, timeout_s=settings.timeout_s
            ),
            folder=folder,
            runner=runner,
        )

    @property
    def nothing(self) -> Mixture:
        """All in 32 bits."""
        return (False,) * len(self.pieces)

    def in_32_bits(self, mixture: Mixture) -> frozenset[str]:
        """Nodes of the pieces in 32 bits."""
        return frozenset(
            name
            for piece, integer in zip(self.pieces, mixture, strict=True)
            if not integer
            for name in piece.nodes
        )

    def fastest(self) -> Mixture:
        """Time each piece alone and all together, then the cost model's best mixture and its neighbours."""
        count = len(self.pieces)
        alone = [tuple(place == piece for place in range(count)) for piece in range(count)]
        together = (True,) * count
        doing = "measuring" if self.runner.measures else "predicting"
        with progress.task(f"{doing} pieces in 8 bits", count + _TRIES) as advance:

            def time(mixture: Mixture) -> float:
                ratio = self._ratio(mixture)
                advance(1)
                return ratio

            for mixture in {*alone, together}:
                self.times[mixture] = time(mixture)
            values = [int(np.prod(self.judged.images.shape[1:])), *(p.end_values for p in self.pieces)]
            self.costs = chain_costs([self.times[m] for m in alone], self.times[together], values)
            return self._worth_it(improve(self.costs, self.times, time))

    def _worth_it(self, mixture: Mixture) -> Mixture:
        """The mixture, or all pieces in 8 bits (smaller) if it is no faster in a direct comparison."""
        together = (True,) * len(self.pieces)
        if mixture == together or not any(mixture) or self.times[together] > 1.0 - WORTH:
            return mixture
        files = (self._file(together), self._file(mixture))
        return mixture if self._quick_ratio(*files) <= 1.0 - WORTH else together

    def still_faster(self, mixture: Mixture, limit: float) -> Mixture:
        """The mixture, or its fastest part within the drop limit, if a new measurement beats 32 bits.

        The best of many short measurements is biased, and pieces returned to 32 bits by the drop limit leave
        precision changes behind, which cost time.
        """
        assert self.costs is not None
        for tried in dict.fromkeys((mixture, fastest(self.costs, mixture))):
            holds = tried == mixture or self.holds(tried, limit)
            if any(tried) and holds and self._ratio(tried) <= 1.0 - WORTH:
                return tried
        return self.nothing

    def write_smaller(self, mixture: Mixture, limit: float, destination: Path) -> IntegerReport | None:
        """Write a mixture within the limit; if it is no smaller, copy the 32-bit file and return ``None``."""
        if self.holds(mixture, limit):
            report = self._write(mixture, destination)
            if size_bytes(destination) < size_bytes(self.source):
                return report
        shutil.copyfile(self.source, destination)
        return None

    @cached_property
    def measure(self) -> Measure:
        """Quality by the task; points are of accuracy, agreement, AP and so on."""
        return measure_for(self.task, self.original, self.judged)

    def limit(self, asked: float | None) -> float:
        """Points that may be lost: those asked for, or one more than stored weights alone lose.

        Without a measure in points speed alone decides.
        """
        if asked is not None:
            return asked
        return self.lost(self.nothing) + DROP_POINTS if self.measure.counts_points else math.inf

    def holds(self, mixture: Mixture, limit: float) -> bool:
        """Whether a mixture is within the limit; nothing is run where there is none."""
        return limit == math.inf or self.lost(mixture) <= limit

    def lost(self, mixture: Mixture) -> float:
        """Points lost by the measure of the task, at its threshold, too, where there is one; relative error
        in percent where there is no measure."""
        if mixture not in self.losses:
            self.losses[mixture] = self.measure.points_parted(self._outputs(mixture, self.judged))
        return self.losses[mixture]

    def held(self, mixture: Mixture, limit: float) -> tuple[Mixture, str]:
        """The mixture with its most harmful pieces in 32 bits, and how their harm was measured."""
        count = len(self.pieces)
        with progress.task("judging pieces in 8 bits", sensitivity_evaluations(count)) as advance:

            def kept(tried: Mixture) -> float:
                fidelity = self._fidelity(tried)
                advance(1)
                return fidelity

            harm = sensitivities(FidelityGame(count, kept))
        accepted = hold(mixture, self.lost, limit, harm, self._gains())
        self.put_back = {
            i for i, (old, new) in enumerate(zip(mixture, accepted, strict=True)) if old and not new
        }
        shown = ", ".join(f"{self.pieces[i].ends_with} {harm[i]:.2e}" for i in np.argsort(-harm)[:5])
        how = (
            "Shapley values of"
            if count <= EXACT_PIECES
            else "mean, alone and last of all, of what each piece adds to"
        )
        held = f"at most {limit:.3g} {'point' if limit == 1 else 'points'} lost of {self.measure.kind.value}"
        return accepted, f"{held}; {how} the outputs' relative squared error, greatest first: {shown}"

    def _gains(self) -> FloatArray:
        """What 8 bits save of each piece (n,): a share of the time, or of the work where no time is known."""
        if self.costs is not None:
            return np.asarray(-self.costs.own)
        work = np.array([piece.work for piece in self.pieces], dtype=np.float64)
        return np.asarray(work / max(work.sum(), 1.0))

    def row(self, place: int, chosen: Mixture) -> PieceRow:
        """Report row of a piece: its precision and the reason."""
        piece = self.pieces[place]
        alone = self.times.get(tuple(i == place for i in range(len(self.pieces))))
        timed = "" if alone is None else f", alone {alone:.3f} of the 32-bit network's time{self._how}"
        if chosen[place]:
            why = f"8 bits{timed}" if alone is not None else "8 bits: latency was not measured"
        elif place in self.put_back:
            why = f"32 bits: harms most for what it gains, and too much was lost{timed}"
        else:
            why = f"32 bits: 8 bits lose or gain less than they are worth here{timed}"
        return PieceRow(
            ends_with=piece.ends_with,
            weighted_nodes=len(piece.weighted),
            integer=chosen[place],
            alone=alone,
            why=why,
        )

    @property
    def _how(self) -> str:
        return "" if self.runner.measures else f", predicted for {self.runner.target.name}"

    def _ratio(self, mixture: Mixture) -> float:
        return self._quick_ratio(self.source, self._file(mixture))

    def _quick_ratio(self, first: Path, second: Path) -> float:
        if self.runner.measures:
            return self.runner.measurer.quick_ratio(first, second)
        return self.runner.share(first, second).value

    def _fidelity(self, mixture: Mixture) -> float:
        """Negative squared error of the outputs, relative to the spread of each channel."""
        few = [output[:_HARM_IMAGES] for output in self.original]
        units = [units_of(output) for output in self.original]
        outputs = self._outputs(mixture, self.judged.first(_HARM_IMAGES))
        return -float(relative_errors(few, outputs, units).mean())

    def _outputs(self, mixture: Mixture, images: ImageBatch) -> parity.Outputs:
        settings = self.calibrated.settings
        return parity.run_onnx(
            self._file(mixture), images.images, threads=settings.threads, timeout_s=settings.timeout_s
        )

    def _file(self, mixture: Mixture) -> Path:
        path = self.folder / f"{''.join('8' if integer else '-' for integer in mixture)}.onnx"
        if not path.exists():
            self._write(mixture, path)
        return path

    def _write(self, mixture: Mixture, path: Path) -> IntegerReport:
        return write_integers(self.calibrated, path, frozenset(), self.in_32_bits(mixture))
