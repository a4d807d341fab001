"""Constants of a folded ONNX graph, some of which depend on the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class UnknownFormError(Exception):
    """What of a node is not known, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class BatchMultiple:
    """An entry of a shape: the batch times ``factor``."""

    factor: int


Size = int | BatchMultiple
"""An entry of a shape."""


@dataclass(frozen=True)
class Sizes:
    """A shape, or other whole numbers, with entries that follow the batch."""

    entries: tuple[Size, ...]


@dataclass(frozen=True, eq=False)
class Repeated:
    """A constant of size 1 along ``axis`` that is repeated there for every image of the batch."""

    values: Array
    axis: int


@dataclass(frozen=True, eq=False)
class ImageIndices:
    """Indices into a flat tensor of all images: ``values`` of the first, and ``step`` further each next."""

    values: Array
    step: int


Constant = Array | Sizes | Repeated | ImageIndices


def image_indices(indices: Array) -> ImageIndices | None:
    """Indices (images, ...) of which every image has the same, a step further; ``None`` of others."""
    if indices.ndim < 2 or not len(indices) or indices.dtype.kind not in "iu":
        return None
    step = int(indices.flat[indices[0].size] - indices.flat[0]) if len(indices) > 1 and indices[0].size else 0
    further = step * np.arange(len(indices)).reshape(-1, *[1] * (indices.ndim - 1))
    return ImageIndices(indices[0], step) if np.array_equal(indices[:1] + further, indices) else None


def resolved(entries: Sequence[Size], batch: Any) -> list[Any]:
    """Numbers for a batch, which may be a symbol of ``torch.export``."""
    return [e if isinstance(e, int) else batch if e.factor == 1 else batch * e.factor for e in entries]
