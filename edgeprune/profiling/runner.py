"""Where models are to run, and how their latency there becomes known: measured, or predicted with a band.

What a command does with latency goes by a :class:`Runner`; which kind a target has is decided here alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeprune.artifacts.latency import LatencyPrediction, Provenance
from edgeprune.artifacts.quantization import Precision
from edgeprune.errors import ProfileError
from edgeprune.profiling.measurer import HostMeasurer, Measurer, RunSettings
from edgeprune.profiling.prediction import predict
from edgeprune.targets import TargetProfile


@dataclass(frozen=True, kw_only=True)
class LatencyShare:
    """Latency of one model over another's; ``high`` is the upper end of its 95% interval if measured."""

    value: float
    high: float | None = None


class Runner(Protocol):
    """Says what a model's latency on its target is."""

    @property
    def target(self) -> TargetProfile:
        """The device."""
        ...

    @property
    def measurer(self) -> Measurer:
        """What runs models: the device, or this machine where the device is not at hand."""
        ...

    @property
    def provenance(self) -> Provenance:
        """How latencies are obtained."""
        ...

    @property
    def measures(self) -> bool:
        """Whether a model is really run there, so that parts of it can be timed, too."""
        ...

    def knows(self, precision: Precision) -> bool:
        """Whether the latency of models stored so is known."""
        ...

    def latency_ms(self, onnx_path: Path) -> float:
        """Latency of one batch in milliseconds.

        Raises:
            ProfileError: the file cannot be run, or predicted.
        """
        ...

    def cpu_ms(self, onnx_path: Path) -> float:
        """Least CPU time of one batch in milliseconds; 0 where it is not measured.

        Raises:
            ProfileError: the file cannot be run.
        """
        ...

    def share(self, original: Path, candidate: Path, *, in_32_bits: Path | None = None) -> LatencyShare:
        """Latency of ``candidate`` over that of ``original``.

        ``in_32_bits`` is the same network in 32 bits, which stands for it where fewer are not known.

        Raises:
            ProfileError: a file cannot be run, or predicted.
        """
        ...

    def prediction(self, onnx_path: Path) -> LatencyPrediction | None:
        """Predicted latency with its band; ``None`` where it is measured instead.

        Raises:
            ProfileError: the file cannot be counted.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class MeasuringRunner:
    """The device itself, this machine or one behind a connection, where onnxruntime runs the model."""

    target: TargetProfile
    measurer: Measurer
    measures: bool = True

    @property
    def provenance(self) -> Provenance:
        """By where models are run."""
        return self.measurer.provenance

    def knows(self, precision: Precision) -> bool:  # noqa: ARG002 - whatever it is can be run
        """Any."""
        return True

    def latency_ms(self, onnx_path: Path) -> float:
        """Median wall-clock time."""
        return self.measurer.latency(onnx_path).latency_p50_ms

    def cpu_ms(self, onnx_path: Path) -> float:
        """Least of some sessions."""
        (least,) = self.measurer.least_cpu_ms([onnx_path])
        if least is None:
            raise ProfileError(
                f"{onnx_path.name} cannot be run {self.measurer.place}; give a valid ONNX file"
            )
        return least

    def share(self, original: Path, candidate: Path, *, in_32_bits: Path | None = None) -> LatencyShare:  # noqa: ARG002
        """CPU time of interleaved pairs."""
        ratio = self.measurer.ratio(original, candidate)
        return LatencyShare(value=ratio.ratio, high=ratio.high)

    def prediction(self, onnx_path: Path) -> LatencyPrediction | None:  # noqa: ARG002
        """None: it is measured."""
        return None


@dataclass(frozen=True, kw_only=True)
class PredictedRunner:
    """A device that is not at hand, by the tables or the roofline of its profile."""

    target: TargetProfile
    measurer: Measurer
    provenance: Provenance = Provenance.PREDICTED
    measures: bool = False

    def knows(self, precision: Precision) -> bool:
        """Weights in 16 bits are turned back when a file is loaded; of 8 bits a profile may say nothing."""
        return precision in (Precision.FP32, Precision.FP16) or self.target.predicts_int8

    def latency_ms(self, onnx_path: Path) -> float:
        """Of one input."""
        return predict(onnx_path, self.target).latency_ms

    def cpu_ms(self, onnx_path: Path) -> float:  # noqa: ARG002
        """Not known."""
        return 0.0

    def share(self, original: Path, candidate: Path, *, in_32_bits: Path | None = None) -> LatencyShare:
        """Of two predictions; ``in_32_bits`` stands for a candidate in bits of which nothing is known."""
        stands_in = in_32_bits is not None and not self.target.predicts_int8
        known = in_32_bits if stands_in and in_32_bits is not None else candidate
        return LatencyShare(value=self.latency_ms(known) / self.latency_ms(original))

    def prediction(self, onnx_path: Path) -> LatencyPrediction | None:
        """With its band."""
        return predict(onnx_path, self.target)


def runner_for(target: TargetProfile, *, threads: int, batch_size: int = 1, seed: int = 0) -> Runner:
    """The runner of a target that no connection leads to."""
    how = RunSettings(threads=threads, batch_size=batch_size, seed=seed)
    return runner_here(target, how)


def runner_here(target: TargetProfile, how: RunSettings) -> Runner:
    """The runner of a target that no connection leads to: measured if it is this machine, else predicted."""
    here = HostMeasurer(settings=how)
    if target.is_host:
        return MeasuringRunner(target=target, measurer=here)
    return PredictedRunner(target=target, measurer=here)
