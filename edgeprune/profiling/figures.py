"""All figures of one ONNX file."""

from __future__ import annotations

from pathlib import Path

from edgeprune.artifacts.latency import ModelFigures
from edgeprune.profiling.measurer import Measurer
from edgeprune.profiling.work import count_parameters, size_bytes, total_macs


def figures(onnx_path: Path, measurer: Measurer | None) -> ModelFigures:
    """Size, parameters, MACs of one input; peak memory and latency of a batch where there is a ``measurer``.

    Raises:
        ProfileError: the file is missing, no ONNX or cannot run, or a dimension other than the batch
            is dynamic.
        DeviceError: nothing can be measured on the device.
    """
    return ModelFigures(
        size_bytes=size_bytes(onnx_path),
        parameters=count_parameters(onnx_path),
        macs=total_macs(onnx_path),
        peak_memory_bytes=None if measurer is None else measurer.peak_memory_bytes(onnx_path),
        latency=None if measurer is None else measurer.latency(onnx_path),
    )
