"""What loading and capturing hand on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule


class ModelFormat(Enum):
    """How the given model was stored."""

    EXPORTED_PROGRAM = "exported-program"
    STATE_DICT = "state-dict"
    PICKLED_MODULE = "pickled-module"
    TORCHVISION = "torchvision"
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

    Parameter names in the graph are those of the user's own state_dict.
    """

    graph_module: GraphModule
    input_shape: tuple[int, ...]
    num_parameters: int
