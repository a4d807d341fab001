"""Models of timm by name, with random or downloaded weights."""

from __future__ import annotations

import contextlib
import difflib
import io
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from edgeprune.errors import ModelLoadError
from edgeprune.loading.architectures.keywords import build_named, import_library
from edgeprune.system.imports import first_line


def build_timm(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A timm model with random weights; ``options`` go to its class.

    Raises:
        ModelLoadError: there is no such name, or it cannot be built that way.
    """
    timm = import_library("timm", "timm:NAME")
    _check_name(timm, name)
    return build_named(
        f"timm:{name}", lambda more: timm.create_model(name, pretrained=False, **more), options
    )


def build_timm_pretrained(name: str, weights: str, options: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """A timm model with downloaded weights: ``default``, or the tag behind the dot of their full name.

    Returns the module and the full name of its weights.

    Raises:
        ModelLoadError: the name or the weights are unknown, or cannot be downloaded.
    """
    timm = import_library("timm", "timm:NAME")
    _check_name(timm, name)
    bare = name.partition(".")[0]
    offered = [full for full in timm.list_pretrained() if full.partition(".")[0] == bare]
    full_name = name if weights.lower() == "default" else f"{bare}.{weights}"
    if full_name != name and full_name not in offered:
        tags = ", ".join(full.partition(".")[2] for full in offered) or "(it has none)"
        raise ModelLoadError(
            f"weights {weights!r} are neither a file nor weights of timm:{name}; give a file, 'default', "
            f"'none' or one of {tags}"
        )
    if not offered:
        raise ModelLoadError(f"timm offers no weights for {name!r}; give a file or 'none' as weights")
    try:
        with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            module: nn.Module = timm.create_model(full_name, pretrained=True, **options)
    except Exception as error:
        raise ModelLoadError(
            f"the weights of timm:{full_name} could not be downloaded ({first_line(error)}); "
            "give a file with --weights, or --weights none for random ones"
        ) from error
    return module, full_name


def timm_input_shape(module: nn.Module) -> tuple[int, ...] | None:
    """(channels, height, width) that a model of timm says it was trained for."""
    told = getattr(module, "pretrained_cfg", None)
    shape = told.get("input_size") if isinstance(told, Mapping) else None
    return tuple(shape) if isinstance(shape, tuple | list) and len(shape) == 3 else None


def _check_name(timm: ModuleType, name: str) -> None:
    if ":" in name or "/" in name or not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise ModelLoadError(f"timm has no model {name!r}; {hint}")
