"""Data types that loading and capturing produce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from edgeprune.errors import CaptureError

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule

InputShape = tuple[int, ...]
"""Shape of one input without the batch: (channels, height, width) of an image."""

InputShapes = tuple[InputShape, ...]
"""One shape an input, in the order of the forward method."""


class ModelFormat(Enum):
    """How the given model was stored."""

    EXPORTED_PROGRAM = "exported-program"
    ONNX = "onnx"
    STATE_DICT = "state-dict"
    PICKLED_MODULE = "pickled-module"
    TORCHVISION = "torchvision"
    TIMM = "timm"
    TRANSFORMERS = "transformers"
    MODULE = "module"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A module in evaluation mode and where it came from.

    ``input_shape`` is (channels, height, width), without the batch; ``None`` where the source
    does not tell. ``sha256`` is that of the file, ``None`` for a model given by name or as a module.
    """

    module: nn.Module
    format: ModelFormat
    source: str
    architecture: str | None = None
    input_shape: tuple[int, ...] | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CapturedModel:
    """The functional ATen graph of a model, batch dimension dynamic, weights as attributes.

    Parameter names in the graph are those of the user's own state_dict but for those that no code can hold;
    ``own_names`` says what these were. ``notes`` say what a reader of the model's figures must know, such as
    images of a batch that see each other.
    """

    graph_module: GraphModule
    input_shapes: InputShapes
    num_parameters: int
    notes: tuple[str, ...] = ()
    own_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def input_shape(self) -> InputShape:
        """Shape of the only input, without the batch.

        Raises:
            CaptureError: the model has several inputs; ``input_shapes`` has them all.
        """
        if len(self.input_shapes) != 1:
            raise CaptureError(
                f"the model takes {len(self.input_shapes)} inputs, {shape_words(self.input_shapes)}; "
                "accepted here is one input: wrap the model so that the others are constants"
            )
        return self.input_shapes[0]


def takes_several(shape: InputShape | InputShapes | None) -> bool:
    """Whether this is a shape for each input, ``((3, 32, 32), (5,))``, rather than one, ``(3, 32, 32)``."""
    return isinstance(shape, tuple | list) and any(isinstance(size, tuple | list) for size in shape)


def shape_words(shape: InputShape | InputShapes) -> str:
    """``3x32x32``, or ``3x32x32 and 5`` for several inputs; ``scalar`` for one number per image."""
    shapes = shape if takes_several(shape) else (shape,)
    return " and ".join("x".join(str(s) for s in sizes) or "scalar" for sizes in shapes)  # type: ignore[union-attr]
