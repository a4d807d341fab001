"""Build the module that ``--arch`` names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import nn

from edgeprune.artifacts.model import ModelFormat
from edgeprune.errors import ModelLoadError
from edgeprune.loading.architectures.keywords import unknown_option
from edgeprune.loading.architectures.timm_models import build_timm, timm_input_shape
from edgeprune.loading.architectures.torchvision_models import (
    build_torchvision,
    is_torchvision_name,
    nominal_input_shape,
)
from edgeprune.loading.architectures.transformers_models import build_transformers, transformers_input_shape
from edgeprune.system.imports import UserFunction

ACCEPTED = "torchvision:NAME, timm:NAME, hf:FOLDER, package.module:function or path/to/file.py:function"


class Library(Enum):
    """Libraries that have models by name, by what stands before the name."""

    TORCHVISION = "torchvision:"
    TIMM = "timm:"
    TRANSFORMERS = "hf:"

    @property
    def format(self) -> ModelFormat:
        """How a report calls models by such a name."""
        return ModelFormat[self.name]


def library_of(name: str) -> Library | None:
    """The library of ``torchvision:NAME``, ``timm:NAME`` or ``hf:FOLDER``; ``None`` for other names."""
    return next((library for library in Library if name.startswith(library.value)), None)


@dataclass(frozen=True)
class Architecture:
    """What ``--arch`` names, and the keyword arguments to build it with."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def library(self) -> Library | None:
        """Where it is from; ``None`` for a function of the user."""
        return library_of(self.name)

    @property
    def bare_name(self) -> str:
        """The name without that of the library."""
        return self.name if self.library is None else self.name.removeprefix(self.library.value)

    @property
    def can_change_classes(self) -> bool:
        """Whether it can be built for another number of classes, and none was asked for."""
        return self.library in {Library.TORCHVISION, Library.TIMM} and "num_classes" not in self.options

    def build(self, classes: int | None = None) -> nn.Module:
        """The module with arbitrary but reproducible weights.

        Raises:
            ModelLoadError: it is unknown, takes other options, fails to build, or is no ``nn.Module``.
        """
        options = dict(self.options) if classes is None else {**self.options, "num_classes": classes}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.library is Library.TORCHVISION:
                return build_torchvision(self.bare_name, options)
            if self.library is Library.TIMM:
                return build_timm(self.bare_name, options)
            if self.library is Library.TRANSFORMERS:
                return build_transformers(self.bare_name, options)
            return _call(self.name, options)

    def input_shape(self, module: nn.Module) -> tuple[int, ...] | None:
        """(channels, height, width) that its library tells of the model, if it does."""
        if self.library is Library.TORCHVISION:
            return nominal_input_shape(self.bare_name)
        if self.library is Library.TIMM:
            return timm_input_shape(module)
        return transformers_input_shape(module) if self.library is Library.TRANSFORMERS else None


def _call(name: str, options: Mapping[str, Any]) -> nn.Module:
    if ":" not in name:
        hint = f"; did you mean torchvision:{name}?" if is_torchvision_name(name) else ""
        raise ModelLoadError(f"architecture {name!r} is not understood; give {ACCEPTED}{hint}")
    function = UserFunction(name, what="architecture", error=ModelLoadError)
    accepted = function.parameters()
    for option in options:
        if accepted is not None and option not in accepted:
            raise unknown_option(f"architecture {name!r}", option, accepted)
    module = function(**options)
    if not isinstance(module, nn.Module):
        raise ModelLoadError(
            f"architecture {name!r} returned {type(module).__name__}; it has to return a torch.nn.Module"
        )
    return module
