"""Figures from a result of a measuring job, and whether they are to be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.latency import LatencyMeasurement, LatencyRatio, Provenance
from edgeprune.devices.jobs import measured_sha256
from edgeprune.devices.protocol import Machine, MeasurementResult, ModelTimes, PairTimes
from edgeprune.errors import UsageError
from edgeprune.profiling.measurer import RunSettings
from edgeprune.profiling.timing import bootstrap_median

NOISE_LIMIT = 0.02
"""How far from 1 the 90% interval of a model against itself may reach."""
_NOISE_CONFIDENCE = 0.90
_CONFIDENCE = 0.95


@dataclass(kw_only=True)
class RecordedMeasurer:
    """What a device has measured before; nothing is run.

    ``source``: the file of the result, as messages name it. ``settings`` are those of its job.
    """

    result: MeasurementResult
    source: str
    settings: RunSettings = field(init=False)
    provenance: Provenance = field(default=Provenance.MEASURED_ON_TARGET, init=False)

    def __post_init__(self) -> None:
        self.settings = RunSettings(threads=self.result.threads, batch_size=self.result.batch_size)

    @property
    def place(self) -> str:
        """The processor there."""
        return f"on {self.result.machine.cpu_name or 'the device'}"

    @property
    def cautions(self) -> Sequence[str]:
        """All that the device said, and how noisy it was."""
        return distrust(self.result)

    def check(self, onnx_path: Path) -> None:
        """Refuse a file that is not in the result."""
        self._name(onnx_path)

    def latency(self, onnx_path: Path) -> LatencyMeasurement:
        """As recorded."""
        return latency_of(self.result, self._times(onnx_path), self.provenance)

    def peak_memory_bytes(self, onnx_path: Path) -> int | None:
        """As recorded."""
        return self._times(onnx_path).peak_memory_bytes

    def ratio(self, onnx_a: Path, onnx_b: Path) -> LatencyRatio:
        """From the pairs that were recorded in this order."""
        names = self._name(onnx_a), self._name(onnx_b)
        for pair in self.result.pairs:
            if (pair.a, pair.b) == names:
                return ratio_of(self.result, pair, self.provenance)
        raise UsageError(
            f"{self.source} has no pairs of {onnx_a.name} and {onnx_b.name} in turns; make the bundle of "
            "both files, the baseline first"
        )

    def quick_ratio(self, onnx_a: Path, onnx_b: Path) -> float:
        """The ratio, since it is there."""
        return self.ratio(onnx_a, onnx_b).ratio

    def least_cpu_ms(self, onnx_paths: Sequence[Path]) -> list[float | None]:
        """Medians as recorded."""
        return [self._times(path).cpu_time_p50_ms for path in onnx_paths]

    def _name(self, onnx_path: Path) -> str:
        digest = measured_sha256(onnx_path)
        names = [name for name, known in self.result.files.items() if known == digest]
        if not names:
            raise UsageError(
                f"{onnx_path.name} is none of the files that {self.source} has times of (its SHA-256 is "
                f"{digest[:12]}..., there: {', '.join(sorted(self.result.files))}); give the file that was "
                "measured, or measure this one"
            )
        return names[0]

    def _times(self, onnx_path: Path) -> ModelTimes:
        name = self._name(onnx_path)
        if name not in self.result.models:
            raise UsageError(
                f"{self.source} has {name} in pairs alone, without times of its own; make a new bundle of it"
            )
        return self.result.models[name]


def latency_of(
    result: MeasurementResult, times: ModelTimes, provenance: Provenance, machine: str | None = None
) -> LatencyMeasurement:
    """Times of one model; ``machine`` is the words for it, those of the result where ``None``."""
    reasons = distrust(result)
    return LatencyMeasurement(
        provenance=provenance,
        latency_p50_ms=times.latency_p50_ms,
        latency_p90_ms=times.latency_p90_ms,
        latency_p99_ms=times.latency_p99_ms,
        cpu_time_p50_ms=times.cpu_time_p50_ms,
        first_run_ms=times.first_run_ms,
        load_ms=times.load_ms,
        operators=times.operators,
        repetitions=times.repetitions,
        warmup=times.warmup,
        processes=times.processes,
        threads=result.threads,
        batch_size=result.batch_size,
        runtime=f"onnxruntime {result.machine.onnxruntime}",
        machine=machine or machine_words(None, result.machine),
        trusted=not reasons,
        caution="; ".join(reasons) or None,
    )


def ratio_of(
    result: MeasurementResult, pair: PairTimes, provenance: Provenance, seed: int = 0
) -> LatencyRatio:
    """Median and interval of one pair."""
    samples = _rows(pair.cpu_ratios)
    median, low, high = bootstrap_median(samples, confidence=_CONFIDENCE, seed=seed)
    reasons = distrust(result)
    return LatencyRatio(
        ratio=median,
        low=low,
        high=high,
        confidence=_CONFIDENCE,
        pairs=samples.size,
        threads=result.threads,
        provenance=provenance,
        trusted=not reasons,
        caution="; ".join(reasons) or None,
    )


def distrust(result: MeasurementResult) -> tuple[str, ...]:
    """Why figures of a result are not to be trusted; nothing where they are.

    CPU time of a model in turns with itself is 1 but for noise: the 90% interval of its median ratio has to
    be within 2% of 1. The device's own cautions count as well.
    """
    if result.noise is None:
        return result.cautions
    _, low, high = bootstrap_median(_rows(result.noise.cpu_ratios), confidence=_NOISE_CONFIDENCE)
    if max(high - 1.0, 1.0 - low) <= NOISE_LIMIT:
        return result.cautions
    said = (
        f"noisy: a model against itself took {low:.3f} to {high:.3f} times as long (90% interval; within "
        f"{NOISE_LIMIT:.0%} of 1 is trusted)"
    )
    return (*result.cautions, said)


def _rows(rounds: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    each = min(map(len, rounds))
    return np.array([row[:each] for row in rounds])


def machine_words(device: str | None, machine: Machine) -> str:
    """One line for a report: the device, and what decides how fast it was."""
    processor = machine.cpu_name or "unknown processor"
    memory = None if machine.memory_bytes is None else f"{machine.memory_bytes / 2**30:.1f} GiB"
    clock = _change("at {} MHz", _mhz(machine.clock_khz_before), _mhz(machine.clock_khz_after))
    warm = _change(
        "{} degrees C", _rounded(machine.temperature_c_before), _rounded(machine.temperature_c_after)
    )
    governor = None if machine.governor is None else f"governor {machine.governor}"
    cores = None if machine.cores_usable is None else f"cores usable {machine.cores_usable}"
    flags = None if machine.throttled_flags is None else f"throttling flags {machine.throttled_flags}"
    parts = [
        f"{device} ({processor}" if device else processor,
        cores, memory, clock, governor, warm, flags, machine.platform,
        f"Python {machine.python}", f"numpy {machine.numpy}{')' if device else ''}",
    ]  # fmt: skip
    return ", ".join(part for part in parts if part is not None)


def _mhz(khz: int | None) -> str | None:
    return None if khz is None else f"{khz / 1000:.0f}"


def _rounded(degrees: float | None) -> str | None:
    return None if degrees is None else f"{degrees:.0f}"


def _change(words: str, before: str | None, after: str | None) -> str | None:
    """The value before and after, or the one that is known."""
    known = [value for value in dict.fromkeys((before, after)) if value is not None]
    return words.format(" to ".join(known)) if known else None
