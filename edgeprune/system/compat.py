"""Import torchvision where its compiled library does not fit the installed torch."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from types import ModuleType

import torch

from edgeprune.errors import ModelLoadError

_log = logging.getLogger("edgeprune.system.compat")
_DETECTION_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled library cannot be loaded.

    Wheels of torch and torchvision from different builds (CPU beside CUDA) leave the library out, and
    torchvision then fails on "operator torchvision::nms does not exist". Only in that case the schemas
    of the operators that it registers at import are declared first. Everything written in Python works
    then (the models, the transforms); the operators themselves, used by detection models only, do not.

    Raises:
        ModelLoadError: torchvision is missing, or fails to import for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise _unusable(error) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise _unusable(error) from error
    _forget_half_import()
    _declare_missing_operators()
    try:
        module = importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        _forget_half_import()
        raise _unusable(error) from error
    _log.warning(
        "torchvision %s was built for another torch than %s and works without its compiled operators; "
        "install both from the same source to have them",
        module.__version__,
        torch.__version__,
    )
    return module


def _unusable(error: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"torchvision cannot be imported ({error}); install the torchvision that belongs to "
        f"torch {torch.__version__}"
    )


def _forget_half_import() -> None:
    """Drop what a failed import left behind, so that the next one starts over."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


@functools.cache
def _declare_missing_operators() -> torch.library.Library:
    """Declare the schemas once; the cache keeps the library, and with it the schemas, alive."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _DETECTION_OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SCHEMA)  # type: ignore[no-untyped-call]
    return library
