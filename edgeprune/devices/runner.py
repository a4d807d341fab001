"""The measurer of a device, and the runner of a target that goes by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.latency import LatencyMeasurement, LatencyRatio, Provenance
from edgeprune.devices.connection import Device
from edgeprune.devices.jobs import run_job
from edgeprune.devices.protocol import Machine, MeasurementJob, MeasurementResult, ModelJob
from edgeprune.errors import ProfileError
from edgeprune.profiling.measurer import LATENCY_PAIRS, RunSettings
from edgeprune.profiling.runner import MeasuringRunner, Runner, runner_here
from edgeprune.profiling.timing import bootstrap_median
from edgeprune.storage.files import sha256_file
from edgeprune.targets import TargetProfile

_CONFIDENCE = 0.95
_QUICK_PAIRS = 25
_WARMUP_S = 3.0
_QUICK_WARMUP_S = 0.5


@dataclass(kw_only=True)
class DeviceMeasurer:
    """Runs models on a device; what one was measured to take is not measured again.

    ``cautions``: what the device said about its measurements so far, each once.
    """

    device: Device
    settings: RunSettings
    provenance: Provenance = field(default=Provenance.MEASURED_ON_TARGET, init=False)
    cautions: list[str] = field(default_factory=list, init=False)
    _alone: dict[str, MeasurementResult] = field(default_factory=dict, init=False)

    @property
    def place(self) -> str:
        """With the name of the device."""
        return f"on {self.device.name}"

    def check(self, onnx_path: Path) -> None:
        """Measure it, which is needed anyway."""
        self._measured(onnx_path)

    def latency(self, onnx_path: Path) -> LatencyMeasurement:
        """In a fresh process there."""
        result = self._measured(onnx_path)
        (times,) = result.models.values()
        return LatencyMeasurement(
            provenance=self.provenance,
            latency_p50_ms=times.latency_p50_ms,
            latency_p90_ms=times.latency_p90_ms,
            cpu_time_p50_ms=times.cpu_time_p50_ms,
            repetitions=times.repetitions,
            warmup=times.warmup,
            threads=self.settings.threads,
            batch_size=self.settings.batch_size or 1,
            runtime=f"onnxruntime {result.machine.onnxruntime}",
            machine=machine_words(self.device.name, result.machine),
        )

    def peak_memory_bytes(self, onnx_path: Path) -> int | None:
        """Of the process that measured it there."""
        (times,) = self._measured(onnx_path).models.values()
        return times.peak_memory_bytes

    def ratio(self, onnx_a: Path, onnx_b: Path) -> LatencyRatio:
        """From ratios that were measured there; the interval is computed here."""
        samples = self._ratios(onnx_a, onnx_b, LATENCY_PAIRS)
        median, low, high = bootstrap_median(samples, confidence=_CONFIDENCE, seed=self.settings.seed)
        return LatencyRatio(
            ratio=median,
            low=low,
            high=high,
            confidence=_CONFIDENCE,
            pairs=samples.size,
            threads=self.settings.threads,
            provenance=self.provenance,
        )

    def quick_ratio(self, onnx_a: Path, onnx_b: Path) -> float:
        """From fewer pairs."""
        return float(np.median(self._ratios(onnx_a, onnx_b, _QUICK_PAIRS)))

    def least_cpu_ms(self, onnx_paths: Sequence[Path]) -> list[float | None]:
        """Median of a session for each; nothing for all where one of them cannot be run."""
        try:
            result = self._run(onnx_paths, warmup_limit_s=_QUICK_WARMUP_S, fresh_process=False)
        except ProfileError:
            return [None] * len(onnx_paths)
        return [times.cpu_time_p50_ms for times in result.models.values()]

    def _measured(self, onnx_path: Path) -> MeasurementResult:
        key = sha256_file(onnx_path)
        if key not in self._alone:
            self._alone[key] = self._run([onnx_path])
        return self._alone[key]

    def _ratios(self, onnx_a: Path, onnx_b: Path, pairs: int) -> NDArray[np.float64]:
        """Ratios of CPU time, B over A: (rounds, pairs of a round)."""
        limit_s = _WARMUP_S if pairs == LATENCY_PAIRS else _QUICK_WARMUP_S
        result = self._run([onnx_a, onnx_b], pairs=pairs, warmup_limit_s=limit_s)
        rounds = result.pairs[0].cpu_ratios
        each = min(map(len, rounds))
        return np.array([row[:each] for row in rounds])

    def _run(
        self,
        onnx_paths: Sequence[Path],
        *,
        pairs: int = 0,
        warmup_limit_s: float = _WARMUP_S,
        fresh_process: bool = True,
    ) -> MeasurementResult:
        """One job: every model alone, or one pair in turns."""
        names = [f"model-{place}" for place in range(len(onnx_paths))]
        job = MeasurementJob(
            threads=self.settings.threads,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            models=tuple(
                ModelJob(name=name, file=f"{sha256_file(path)}.onnx")  # one name, one content
                for name, path in zip(names, onnx_paths, strict=True)
            ),
            pairs=((names[0], names[1]),) if pairs else (),
            least_pairs=pairs or LATENCY_PAIRS,
            warmup_limit_s=warmup_limit_s,
            fresh_process=fresh_process,
        )
        result = run_job(self.device, job, onnx_paths)
        for caution in result.cautions:
            told = f"{self.device.name}: {caution}"
            if told not in self.cautions:
                self.cautions.append(told)
        return result


def machine_words(device: str, machine: Machine) -> str:
    """One line for a report: the device, and what decides how fast it was."""
    memory = None if machine.memory_bytes is None else f"{machine.memory_bytes / 2**30:.1f} GiB"
    clock = _change("at {} MHz", _mhz(machine.clock_khz_before), _mhz(machine.clock_khz_after))
    warm = _change(
        "{} degrees C", _rounded(machine.temperature_c_before), _rounded(machine.temperature_c_after)
    )
    governor = None if machine.governor is None else f"governor {machine.governor}"
    cores = None if machine.cores_usable is None else f"cores usable {machine.cores_usable}"
    flags = None if machine.throttled_flags is None else f"throttling flags {machine.throttled_flags}"
    parts = [
        f"{device} ({machine.cpu_name or 'unknown processor'}",
        cores, memory, clock, governor, warm, flags, machine.platform,
        f"Python {machine.python}", f"numpy {machine.numpy})",
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


def runner_on(target: TargetProfile, device: Device | None, how: RunSettings) -> Runner:
    """The runner of a target: by measurements on the device if one is connected, else as without one."""
    if device is None:
        return runner_here(target, how)
    return MeasuringRunner(target=target, measurer=DeviceMeasurer(device=device, settings=how))
