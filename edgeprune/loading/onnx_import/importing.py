"""``import_onnx``: a torch module that calculates what an ONNX file does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.report import ParityFigure, Verdict
from edgeprune.errors import ModelLoadError, ParityError, ProfileError
from edgeprune.loading.onnx_import.build import build
from edgeprune.loading.onnx_import.folding import FoldedFile, fold
from edgeprune.parity import compare, run_onnx, run_torch
from edgeprune.system.imports import first_line

TOLERANCE = 1e-4
"""Of the largest output; float32 in another order of summation."""
_IMAGES = 3
_COARSE = 4
"""Side of the noise that smooth images are enlarged from."""


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A module in evaluation mode, equal to its file on random images; ``notes`` say what differs inside."""

    module: nn.Module
    opset: int
    input_shape: tuple[int, ...]
    fixed_batch: int | None
    notes: tuple[str, ...] = ()


def import_onnx(
    path: Path, input_shape: tuple[int, ...] | None = None, *, tolerance: float = TOLERANCE
) -> ImportedModel:
    """Import a file for images of ``input_shape`` (channels, ...), which it may fix itself.

    The module is compared with the file in onnxruntime, on noise and on smooth images, before it is returned;
    ``tolerance`` is the largest error of an output over the largest output.

    Raises:
        ModelLoadError: an operator or form that is not known, a batch or size that cannot be had, or a
            module that differs from the file.
    """
    folded = fold(path, input_shape)
    network, copies = build(folded, path.name)
    _check(network, folded, path, tolerance)
    return ImportedModel(
        module=network,
        opset=folded.opset,
        input_shape=folded.input_shape,
        fixed_batch=folded.fixed_batch,
        notes=copies,
    )


def _check(module: nn.Module, folded: FoldedFile, path: Path, most: float) -> None:
    """Compare on noise and smooth images together: an output may be constant on one kind alone."""
    images = torch.cat([_noise(folded.input_shape), _smooth(folded.input_shape)])
    try:
        expected = run_onnx(path, images, threads=torch.get_num_threads())
    except ProfileError as error:
        raise ModelLoadError(str(error)) from error
    try:
        given = run_torch(module, images)
    except Exception as error:
        raise _dependent(folded, path, first_line(error)) from error
    try:
        figure = compare(expected, given, names=(path.name, "the imported network"), tolerance=most)
    except ParityError as error:
        shapes = [tuple(output.shape) for output in given]
        raise _dependent(folded, path, f"it gives {shapes} for {len(images)} images") from error
    if figure.verdict is Verdict.FAILED:
        raise ModelLoadError(
            f"{path.name} was imported, but on random images the network differs from the file by "
            f"{_difference(figure)}; nothing was done: give the torch model, and please report the file"
        )


def _difference(figure: ParityFigure) -> str:
    text = f"{figure.relative_error:.1e} of the largest output (accepted is {figure.tolerance:.0e})"
    if figure.by_channel is not None:
        worst = figure.by_channel.worst[0]
        text += (
            f", {worst.relative_error:.1e} of the spread in channel {worst.channel} of output {worst.output}"
        )
    return text


def _dependent(folded: FoldedFile, path: Path, reason: str) -> ModelLoadError:
    if folded.fixed_batch is not None:
        return ModelLoadError(
            f"{path.name} takes a batch of {folded.fixed_batch} alone and its graph depends on it "
            f"({reason}); export the model again with a dynamic batch"
        )
    return ModelLoadError(
        f"{path.name} was imported, but the network does not run as the file does ({reason}); give the "
        "torch model, and please report the file"
    )


def _noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randn((_IMAGES, *shape), generator=torch.Generator().manual_seed(0))


def _smooth(shape: tuple[int, ...]) -> Tensor:
    """Images from 0 to 1 of different brightness that change slowly; noise where there are no two sides."""
    sides = (_COARSE, _COARSE) if len(shape) == 3 else shape[1:]
    coarse = torch.rand((_IMAGES, shape[0], *sides), generator=torch.Generator().manual_seed(1))
    if len(shape) != 3:
        return coarse
    coarse *= torch.linspace(0.5, 1.0, _IMAGES).reshape(-1, 1, 1, 1)
    return functional.interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=False)
