"""Constants of a folded ONNX graph, some of which depend on the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


Constant = Array | Sizes | Repeated


def resolved(entries: Sequence[Size], batch: Any) -> list[Any]:
    """Numbers for a batch, which may be a symbol of ``torch.export``."""
    return [e if isinstance(e, int) else batch if e.factor == 1 else batch * e.factor for e in entries]
