"""How the grid is measured on a device behind a connection: in jobs of some networks each."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from edgeprune.commands.targets.grid import grid
from edgeprune.commands.targets.grid_files import grid_files
from edgeprune.commands.targets.measuring import NetworkTime
from edgeprune.devices.connection import Device
from edgeprune.devices.instruction_sets import other_instructions
from edgeprune.devices.jobs import run_job
from edgeprune.devices.protocol import Machine, MeasurementJob, ModelJob, ModelTimes
from edgeprune.devices.recorded import machine_words
from edgeprune.errors import ProfileError, TargetError
from edgeprune.storage.files import scratch_folder, sha256_file
from edgeprune.system import progress
from edgeprune.targets import TargetProfile

_TOGETHER = 10
"""Networks of a job: few jobs, of which each ends soon and none is too large for a small device."""
_SAMPLES, _ROUNDS = 5, 4
_WITH_THREADS_SAMPLES = 20
_WARMUP_S = 0.5


@dataclass(kw_only=True)
class GridThere:
    """A device to calibrate, behind a connection; ``facts`` are those of the profile it is of."""

    device: Device
    facts: TargetProfile
    _machine: Machine | None = field(default=None, init=False)

    @property
    def machine(self) -> str:
        """What measured, in words."""
        return self.device.name if self._machine is None else machine_words(self.device.name, self._machine)

    @property
    def runtime(self) -> str:
        """The onnxruntime there."""
        return "" if self._machine is None else f"onnxruntime {self._machine.onnxruntime}"

    @property
    def cores(self) -> int | None:
        """That can be used there."""
        return None if self._machine is None else self._machine.cores_usable

    def check(self) -> None:
        """Run the first network of the grid once.

        Raises:
            TargetError: the device has other instructions than its profile says.
            DeviceError: it fails.
            ProfileError: onnxruntime there cannot run it.
        """
        with scratch_folder("probe-") as folder:
            path = folder / "probe.onnx"
            onnx.save(grid_files(grid()[:1])[1].model(), path)
            self._run([(0, path)], MeasurementJob(threads=1, models=(), fresh_process=False))

    def measure(self, files: Sequence[Path], threads: int) -> Sequence[NetworkTime | None]:
        """In several rounds with one thread: what disturbs a network in one of them is over in another.

        Raises:
            DeviceError: it fails.
        """
        alone = threads == 1
        rounds = _ROUNDS if alone else 1
        asked = MeasurementJob(
            threads=threads,
            models=(),
            batch_size=1,
            warmup_limit_s=_WARMUP_S,
            fresh_process=False,
            samples=_SAMPLES if alone else _WITH_THREADS_SAMPLES,
        )
        least = [math.inf] * len(files)
        shares: list[dict[str, float]] = [{} for _ in files]
        words = f"measuring {len(files)} small networks on {self.device.name}"
        words += "" if alone else f" with {threads} threads"
        with progress.task(words, rounds * len(files)) as advance:
            for turn in range(rounds):
                job = replace(asked, per_operator=turn == 0 and alone, per_node=True)
                for begin in range(0, len(files), _TOGETHER):
                    part = files[begin : begin + _TOGETHER]
                    for place, times in self._times(part, job):
                        spent = times.cpu_time_p50_ms if alone else times.latency_p50_ms
                        least[begin + place] = min(least[begin + place], spent)
                        if times.nodes:
                            shares[begin + place] = times.nodes
                    advance(len(part))
        return [
            None if math.isinf(spent) else NetworkTime(time_ms=spent, shares=own)
            for spent, own in zip(least, shares, strict=True)
        ]

    def _times(self, files: Sequence[Path], job: MeasurementJob) -> Iterator[tuple[int, ModelTimes]]:
        """Times of the files that could be run, by their places."""
        places = list(enumerate(files))
        try:
            found = self._run(places, job)
        except ProfileError:  # of one of them; which the others do not have to suffer
            for one in places:
                with contextlib.suppress(ProfileError):
                    yield one[0], self._run([one], job)[0]
            return
        yield from enumerate(found)

    def _run(self, places: Sequence[tuple[int, Path]], job: MeasurementJob) -> list[ModelTimes]:
        """The job with these files, in their order."""
        models = [ModelJob(name=f"{place}", file=f"{sha256_file(path)}.onnx") for place, path in places]
        result = run_job(self.device, replace(job, models=tuple(models)), [path for _, path in places])
        if (words := other_instructions(self.facts, result.machine)) is not None:
            raise TargetError(f"{self.device.name}: {words}; give --target a profile of such a processor")
        self._machine = result.machine
        return [result.models[model.name] for model in models]
