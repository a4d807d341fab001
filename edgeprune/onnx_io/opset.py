"""The version of the standard operators that a model uses, and converting it to a later one."""

from __future__ import annotations

from pathlib import Path

import onnx.version_converter
from onnx import ModelProto

from edgeprune.errors import EdgepruneError
from edgeprune.onnx_io.session import in_a_sentence

LEAST_OPSET = 7
"""Before it operators broadcast in another way, and onnxruntime has none of them."""


def opset_of(model: ModelProto) -> int:
    """Version of the standard operators; 0 where the model uses none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def with_opset(model: ModelProto, least: int, path: Path, raises: type[EdgepruneError]) -> ModelProto:
    """The model, or where it is of an older opset one of opset ``least`` by onnx's converter.

    Whether that calculates the same is for the caller to check: the converter knows not every operator.

    Raises:
        EdgepruneError: it cannot be converted, of the kind ``raises``.
    """
    given = opset_of(model)
    if given >= least:
        return model
    if given < LEAST_OPSET:
        raise raises(
            f"{path.name} is of opset {given}; accepted are opset {LEAST_OPSET} and later: export it again"
        )

    def failed(reason: str) -> str:
        return (
            f"{path.name} is of opset {given} and cannot be converted to opset {least} ({reason}); export it "
            f"with opset {least} or later, or store it in 16 bits, which takes any"
        )

    with in_a_sentence(raises, failed):
        converted: ModelProto = onnx.version_converter.convert_version(model, least)
    return converted
