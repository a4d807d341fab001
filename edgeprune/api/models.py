"""Networks of files as torch modules: ``load_onnx``."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgeprune.artifacts.model import InputShape, ModelFormat
from edgeprune.errors import UsageError
from edgeprune.loading import load_model


def load_onnx(path: str | Path, *, input_shape: InputShape | None = None) -> nn.Module:
    """The network of an ONNX file as :func:`compress` imports it: trainable, in evaluation mode.

    Its names of tensors are those that ``surgery.json`` and ``weights.safetensors`` of such a run have, so it
    is the module to give :func:`apply_surgery`.

    Args:
        path: the file that the run was given.
        input_shape: (channels, height, width), where the file does not fix them: that of the run.

    Raises:
        UsageError: ``path`` is no ONNX file.
        ModelLoadError: the file cannot be imported; says why.
    """
    loaded = load_model(path, input_shape=None if input_shape is None else tuple(input_shape))
    if loaded.format is not ModelFormat.ONNX:
        raise UsageError(
            f"{str(path)!r} is no ONNX file but {loaded.format.value}; give the path of an .onnx file"
        )
    return loaded.module
