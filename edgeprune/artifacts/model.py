"""Data types that loading and capturing produce."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from edgeprune.errors import CaptureError

if TYPE_CHECKING:
    from torch import Tensor, nn
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
    images of a batch that see each other. ``joins``: shapes by name of the inputs that the only one joins.
    """

    graph_module: GraphModule
    input_shapes: InputShapes
    num_parameters: int
    notes: tuple[str, ...] = ()
    own_names: Mapping[str, str] = field(default_factory=dict)
    joins: Mapping[str, InputShape] = field(default_factory=dict)

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


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """What was given; ``inputs`` are the shapes by name of several, which are joined to ``input_shape``."""

    source: str
    format: str
    architecture: str | None
    input_shape: tuple[int, ...]
    sha256: str | None
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def input_words(self) -> str:
        """``3x32x32``, or ``left 3x32x32, right 3x32x32`` for several inputs."""
        named = [f"{name} {shape_words(shape)}" for name, shape in self.inputs.items()]
        return ", ".join(named) or shape_words(self.input_shape)


def taken_apart(rows: Tensor, shapes: InputShapes) -> tuple[Tensor, ...]:
    """The inputs (n, *shape) of an image each, from rows (n, values) that join them."""
    return tuple(
        rows[:, start:end].reshape(len(rows), *shape)
        for (start, end), shape in zip(places_in_a_row(shapes), shapes, strict=True)
    )


def places_in_a_row(shapes: Iterable[InputShape]) -> tuple[tuple[int, int], ...]:
    """First and one behind the last value of each input in a row that joins them."""
    return tuple(pairwise([0, *accumulate(math.prod(shape) for shape in shapes)]))


def numbered_inputs(count: int) -> tuple[str, ...]:
    """Names of inputs where the model's own are not known."""
    return tuple(f"input_{place}" for place in range(count))


def takes_several(shape: InputShape | InputShapes | None) -> bool:
    """Whether this is a shape for each input, ``((3, 32, 32), (5,))``, rather than one, ``(3, 32, 32)``."""
    return isinstance(shape, tuple | list) and any(isinstance(size, tuple | list) for size in shape)


def shape_words(shape: InputShape | InputShapes) -> str:
    """``3x32x32``, or ``3x32x32 and 5`` for several inputs; ``scalar`` for one number per image."""
    shapes = shape if takes_several(shape) else (shape,)
    return " and ".join("x".join(str(s) for s in sizes) or "scalar" for sizes in shapes)  # type: ignore[union-attr]
