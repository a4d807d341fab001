"""All figures of one ONNX file on this host."""

from __future__ import annotations

from pathlib import Path

from edgeprune.artifacts.latency import ModelFigures
from edgeprune.profiling.memory import peak_memory_bytes
from edgeprune.profiling.timing import measure
from edgeprune.profiling.work import count_parameters, size_bytes, total_macs


def figures(
    onnx_path: str | Path,
    *,
    threads: int,
    batch_size: int = 1,
    measure_latency: bool = True,
    measure_memory: bool = True,
    repetitions: int = 50,
    seed: int = 0,
    timeout_s: float | None = None,
) -> ModelFigures:
    """Size, parameters, MACs of one input, and measured peak memory and latency of a batch.

    One run takes ``timeout_s`` seconds at most.

    Raises:
        ProfileError: the file is missing, no ONNX or cannot run, or a dimension other than the batch
            is dynamic.
        UsageError: ``threads`` or ``repetitions`` is below 1.
    """
    return ModelFigures(
        size_bytes=size_bytes(onnx_path),
        parameters=count_parameters(onnx_path),
        macs=total_macs(onnx_path),
        peak_memory_bytes=peak_memory_bytes(onnx_path, threads, batch_size) if measure_memory else None,
        latency=measure(
            onnx_path,
            threads=threads,
            batch_size=batch_size,
            repetitions=repetitions,
            seed=seed,
            timeout_s=timeout_s,
        )
        if measure_latency
        else None,
    )
