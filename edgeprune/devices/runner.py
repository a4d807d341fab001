"""The measurer of a device, and the runner of a target that goes by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeprune.artifacts.latency import LatencyMeasurement, LatencyRatio, Provenance
from edgeprune.devices.connection import Device
from edgeprune.devices.instruction_sets import cautioned
from edgeprune.devices.jobs import run_job
from edgeprune.devices.protocol import PROCESSES, MeasurementJob, MeasurementResult, ModelJob
from edgeprune.devices.recorded import distrust, latency_of, machine_words, ratio_of
from edgeprune.errors import ProfileError
from edgeprune.profiling.measurer import LATENCY_PAIRS, RunSettings
from edgeprune.profiling.runner import MeasuringRunner, Runner, runner_here
from edgeprune.storage.files import sha256_file
from edgeprune.system.host import machine_description
from edgeprune.targets import TargetProfile

_QUICK_PAIRS = 25
_WARMUP_S = 3.0
_QUICK_WARMUP_S = 0.5


@dataclass(kw_only=True)
class DeviceMeasurer:
    """Runs models on a device; what one was measured to take is not measured again.

    ``target``: what the device is said to be, so that one with other instructions is noticed. ``cautions``:
    what the device said about its measurements so far, each once. ``noise_check``: also find out how noisy it
    is, and which operators take the time.
    """

    device: Device
    settings: RunSettings
    target: TargetProfile | None = None
    provenance: Provenance = Provenance.MEASURED_ON_TARGET
    noise_check: bool = False
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
        return latency_of(result, times, self.provenance, machine=self._machine(result))

    def _machine(self, result: MeasurementResult) -> str:
        if self.provenance is Provenance.MEASURED_ON_HOST:
            return machine_description()
        return machine_words(self.device.name, result.machine)

    def peak_memory_bytes(self, onnx_path: Path) -> int | None:
        """Of the process that measured it there."""
        (times,) = self._measured(onnx_path).models.values()
        return times.peak_memory_bytes

    def ratio(self, onnx_a: Path, onnx_b: Path) -> LatencyRatio:
        """From ratios that were measured there; the interval is computed here."""
        result = self._pair(onnx_a, onnx_b, LATENCY_PAIRS)
        return ratio_of(result, result.pairs[0], self.provenance, self.settings.seed)

    def quick_ratio(self, onnx_a: Path, onnx_b: Path) -> float:
        """From fewer pairs."""
        (pair,) = self._pair(onnx_a, onnx_b, _QUICK_PAIRS).pairs
        return float(np.median(np.concatenate([np.array(row) for row in pair.cpu_ratios])))

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

    def _pair(self, onnx_a: Path, onnx_b: Path, pairs: int) -> MeasurementResult:
        limit_s = _WARMUP_S if pairs == LATENCY_PAIRS else _QUICK_WARMUP_S
        return self._run([onnx_a, onnx_b], pairs=pairs, warmup_limit_s=limit_s)

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
            processes=PROCESSES,
            noise_check=self.noise_check and fresh_process,
            per_operator=self.noise_check and not pairs,
        )
        result = cautioned(run_job(self.device, job, onnx_paths), self.target)
        for caution in distrust(result):
            told = f"{self.device.name}: {caution}"
            if told not in self.cautions:
                self.cautions.append(told)
        return result


def runner_on(target: TargetProfile, device: Device | None, how: RunSettings) -> Runner:
    """The runner of a target: by measurements on the device if one is connected, else as without one."""
    if device is None:
        return runner_here(target, how)
    return MeasuringRunner(target=target, measurer=DeviceMeasurer(device=device, settings=how, target=target))
