"""What really runs models: this machine, or a device behind a connection (``devices/runner.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgeprune.artifacts.latency import LatencyMeasurement, LatencyRatio, Provenance
from edgeprune.errors import ProfileError
from edgeprune.profiling.memory import peak_memory_bytes
from edgeprune.profiling.timing import compare, least_cpu_ms, measure, open_runner, quick_ratio

LATENCY_PAIRS = 100
"""Interleaved pairs of a comparison."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How models are run: ``batch_size`` is that of the file where it is ``None``, or 1."""

    threads: int
    batch_size: int | None = 1
    seed: int = 0
    timeout_s: float | None = None


class Measurer(Protocol):
    """Runs models and times them in one place.

    All methods raise ``ProfileError`` where a model cannot be run, and ``DeviceError`` where a device fails.
    """

    @property
    def settings(self) -> RunSettings:
        """How models are run."""
        ...

    @property
    def provenance(self) -> Provenance:
        """What its figures are."""
        ...

    @property
    def place(self) -> str:
        """Where that is, such as ``on this host``."""
        ...

    @property
    def cautions(self) -> Sequence[str]:
        """What makes figures so far less than they seem: the device was throttled, or too busy."""
        ...

    def check(self, onnx_path: Path) -> None:
        """Run a model once."""
        ...

    def latency(self, onnx_path: Path) -> LatencyMeasurement:
        """Times of one model."""
        ...

    def peak_memory_bytes(self, onnx_path: Path) -> int | None:
        """Peak of loading and running a model; ``None`` where the system does not tell."""
        ...

    def ratio(self, onnx_a: Path, onnx_b: Path) -> LatencyRatio:
        """CPU time of B over A from interleaved pairs, with its interval."""
        ...

    def quick_ratio(self, onnx_a: Path, onnx_b: Path) -> float:
        """CPU time of B over A from few pairs: to choose by, not to report."""
        ...

    def least_cpu_ms(self, onnx_paths: Sequence[Path]) -> list[float | None]:
        """Least CPU time of one run of each model in milliseconds; ``None`` where it cannot be run."""
        ...


@dataclass(frozen=True, kw_only=True)
class HostMeasurer:
    """This machine."""

    settings: RunSettings
    provenance: Provenance = field(default=Provenance.MEASURED_ON_HOST, init=False)
    place: str = field(default="on this host", init=False)
    cautions: tuple[str, ...] = field(default=(), init=False)

    def check(self, onnx_path: Path) -> None:
        """In this process."""
        how = self.settings
        open_runner(
            onnx_path, threads=how.threads, batch_size=how.batch_size, seed=how.seed, timeout_s=how.timeout_s
        )

    def latency(self, onnx_path: Path) -> LatencyMeasurement:
        """In this process."""
        how = self.settings
        return measure(
            onnx_path,
            threads=how.threads, batch_size=how.batch_size or 1, seed=how.seed, timeout_s=how.timeout_s,
        )  # fmt: skip

    def peak_memory_bytes(self, onnx_path: Path) -> int | None:
        """In a fresh process."""
        return peak_memory_bytes(onnx_path, self.settings.threads, self.settings.batch_size or 1)

    def ratio(self, onnx_a: Path, onnx_b: Path) -> LatencyRatio:
        """In this process, in five sessions each."""
        how = self.settings
        return compare(
            onnx_a, onnx_b, pairs=LATENCY_PAIRS,
            threads=how.threads, batch_size=how.batch_size, seed=how.seed, timeout_s=how.timeout_s,
        )  # fmt: skip

    def quick_ratio(self, onnx_a: Path, onnx_b: Path) -> float:
        """In this process, in one session each."""
        return quick_ratio(onnx_a, onnx_b, threads=self.settings.threads, timeout_s=self.settings.timeout_s)

    def least_cpu_ms(self, onnx_paths: Sequence[Path]) -> list[float | None]:
        """In this process, in three sessions each."""
        return [self._least_cpu_ms(path) for path in onnx_paths]

    def _least_cpu_ms(self, onnx_path: Path) -> float | None:
        how = self.settings
        try:
            return least_cpu_ms(onnx_path, threads=how.threads, batch_size=how.batch_size or 1)
        except ProfileError:
            return None
