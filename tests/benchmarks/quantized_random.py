"""Files in 8 bits for measurements of time: calibrated with random images, since values do not change it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class _RandomImages(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, path: Path, count: int = 1) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        given = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).get_inputs()
        rng = np.random.default_rng(0)
        self._feeds: Iterator[dict[str, Any]] = iter(
            [
                {
                    x.name: rng.normal(size=[d if isinstance(d, int) else 1 for d in x.shape]).astype(
                        np.float32
                    )
                    for x in given
                }
                for _ in range(count)
            ]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def quantized_with_random_images(path: Path, destination: Path, *, signed: bool) -> Path:
    """The file in 8 bits (QDQ), weights per channel."""
    plain = destination.with_name(f"{destination.stem}-plain.onnx")
    quant_pre_process(str(path), str(plain), skip_symbolic_shape=True)
    quantize_static(
        str(plain), str(destination), _RandomImages(plain), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    plain.unlink()
    return destination
