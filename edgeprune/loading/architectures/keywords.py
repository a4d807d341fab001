"""Keyword arguments of architectures: checked by name, so that a misspelt one is told with those accepted."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any

from torch import nn

from edgeprune.errors import ModelLoadError
from edgeprune.showing import did_you_mean
from edgeprune.system.compat import torchvision_repaired
from edgeprune.system.imports import ended_in_the_open, first_line


def import_library(name: str, used_as: str) -> ModuleType:
    """Import a library of models, also where torchvision's compiled library does not fit.

    Raises:
        ModelLoadError: it is missing, or fails to import.
    """
    try:
        with torchvision_repaired(), ended_in_the_open():
            return importlib.import_module(name)
    except Exception as error:
        raise ModelLoadError(
            f"{name} cannot be imported ({first_line(error)}); install it (pip install {name}) "
            f"to use {used_as}"
        ) from error


def build_named(name: str, make: Callable[[Mapping[str, Any]], Any], options: Mapping[str, Any]) -> nn.Module:
    """What ``make`` builds with ``options``.

    Raises:
        ModelLoadError: it cannot; an option that it does not know is told with those of its class.
    """
    try:
        module: nn.Module = make(options)
    except Exception as error:
        accepted = _accepted(make)
        for option in options:
            if isinstance(error, TypeError) and f"'{option}'" in str(error) and option not in accepted:
                raise unknown_option(name, option, accepted) from error
        given = f" with {options_text(options)}" if options else ""
        raise ModelLoadError(f"{name} cannot be built{given} ({first_line(error)})") from error
    return module


def _accepted(make: Callable[[Mapping[str, Any]], Any]) -> list[str]:
    """Names that the class of what is built takes and that have a default."""
    try:
        parameters = inspect.signature(type(make({})).__init__).parameters.values()
    except Exception:  # the class is code of others; without options it may fail as well
        return []
    return [p.name for p in parameters if p.default is not inspect.Parameter.empty]


def unknown_option(name: str, option: str, accepted: Collection[str]) -> ModelLoadError:
    """The failure of an option that an architecture does not take."""
    known = f"accepted are {', '.join(accepted)}" if accepted else "it takes none"
    return ModelLoadError(
        f"{name} takes no {option!r}, which --arch-kwargs gives; {did_you_mean(option, accepted)}{known}"
    )


def options_text(options: Mapping[str, Any]) -> str:
    """``width=0.5, num_classes=10``."""
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "no options"
