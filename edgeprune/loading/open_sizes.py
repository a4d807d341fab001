"""Sizes of images that an ONNX file leaves to those who run it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgeprune.errors import ModelLoadError
from edgeprune.loading.architectures.building import library_of
from edgeprune.onnx_io.inputs import model_inputs
from edgeprune.onnx_io.passes.normal_form import Sizes
from edgeprune.onnx_io.read import read_onnx
from edgeprune.storage.archives import FileKind, detect_kind


def open_sizes(source: str | Path | nn.Module) -> Sizes | None:
    """(channels, height, width) of images as far as an ONNX file tells, where it leaves any of them open.

    ``None`` for every other source, and for a file that does not take images alone.

    Raises:
        ModelLoadError: the file cannot be read.
    """
    if isinstance(source, nn.Module) or library_of(str(source)) is not None or not Path(source).is_file():
        return None
    if detect_kind(Path(source)) is not FileKind.ONNX:
        return None
    inputs = model_inputs(read_onnx(Path(source), ModelLoadError, external_data=False))
    if len(inputs) != 1 or inputs[0].sizes is None or not inputs[0].may_be_image:
        return None
    return inputs[0].image if inputs[0].dynamic else None
