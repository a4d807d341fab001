"""Gradients of an ONNX file's outputs by its activations, by way of the imported network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto
from torch import Tensor

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.errors import ModelLoadError, ProfileError
from edgeprune.fx import tensor_leaves
from edgeprune.games.losses import ImageLoss
from edgeprune.loading.onnx_import.importing import import_onnx
from edgeprune.loading.onnx_import.network import ImportedNetwork
from edgeprune.profiling.work import total_macs
from edgeprune.quantization.ranges.weighting import Traced
from edgeprune.storage.files import scratch_folder

MOST_IMAGES = 256
"""nudenet's detector: errors of scores are .106 with all values alike, .045 with 64 images, .037 with 188."""
_LEAST_IMAGES = 32
_WORK_MACS = 2e11
"""Of one pass over all traced images, which takes a core about a minute for each 1e11 at most."""
_AT_ONCE = 4
_TOLERANCE = 1e-2
"""Of the imported network's outputs: gradients need not be as exact as what is pruned."""


@dataclass(frozen=True)
class OutputGradients:
    """Traces ``batch`` (a :class:`~edgeprune.quantization.ranges.weighting.GradientSource`)."""

    batch: ImageBatch
    seed: int = 0

    @classmethod
    def of(cls, path: Path, batch: ImageBatch, seed: int) -> OutputGradients:
        """For a file: as many of the images as the work allows."""
        try:
            affordable = max(_LEAST_IMAGES, int(_WORK_MACS // max(1, total_macs(path))))
        except ProfileError:  # unknown work
            affordable = _LEAST_IMAGES
        return cls(replace(batch.first(min(MOST_IMAGES, affordable)), labels=None), seed)

    @property
    def images(self) -> int:
        """Number of images that are traced."""
        return len(self.batch)

    def trace(self, model: ModelProto) -> Iterator[tuple[int, Traced]]:
        """Activations and gradients a few images at a time.

        Raises:
            ModelLoadError: the file cannot be imported, or no gradient leads through it.
        """
        network = _imported(model, tuple(self.batch.images.shape[1:]))
        rng = np.random.default_rng(self.seed)
        chunks = torch.split(self.batch.images, _AT_ONCE)
        with torch.no_grad():
            parts = [_numbers(network(chunk)) for chunk in chunks]
        if not parts[0]:
            raise ModelLoadError("no output is of floating-point numbers")
        loss = ImageLoss(self.batch, [torch.cat(each) for each in zip(*parts, strict=True)])
        for chunk in chunks:
            yield len(chunk), _traced(network, chunk, loss, rng)


def _numbers(outputs: Any) -> list[Tensor]:
    """Those outputs that may have gradients; classes, counts and truth values have none."""
    return [output for output in tensor_leaves(outputs) if output.is_floating_point()]


def _imported(model: ModelProto, shape: tuple[int, ...]) -> ImportedNetwork:
    with scratch_folder() as folder:
        path = folder / "model.onnx"
        onnx.save_model(model, str(path))
        network = import_onnx(path, shape, tolerance=_TOLERANCE).module
    assert isinstance(network, ImportedNetwork)
    return network.requires_grad_(False)


def _traced(network: ImportedNetwork, images: Tensor, loss: ImageLoss, rng: np.random.Generator) -> Traced:
    kept: dict[str, Tensor] = {}

    def seen(name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.is_floating_point() and value.requires_grad:
            value.retain_grad()
            kept[name] = value

    with torch.enable_grad():
        outputs = _numbers(network.traced(images.clone().requires_grad_(True), seen))
        total = loss.projection(outputs, rng)
        if not total.requires_grad:
            raise ModelLoadError("no gradient leads from the outputs to the images")
        total.backward()  # type: ignore[no-untyped-call]
    return {
        name: (value.detach().numpy(), value.grad.numpy())
        for name, value in kept.items()
        if value.grad is not None
    }
