"""Import torchvision where its compiled library does not fit the installed torch."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgeprune.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

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
    _tell(module)
    return module


@contextlib.contextmanager
def torchvision_repaired() -> Iterator[None]:
    """Let whatever imports torchvision in the block get it as :func:`import_torchvision` does."""
    if "torchvision" in sys.modules:
        yield
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(finder)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds torchvision where Python would, and has it loaded by :class:`_Loader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            found.loader = _Loader(found.loader)
        return found


class _Loader(importlib.abc.Loader):
    """Loads torchvision again, its operators declared, where it failed without them."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
            return
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
        _forget_half_import(but=module)
        _declare_missing_operators()
        self._loader.exec_module(module)
        _tell(module)


def _tell(module: ModuleType) -> None:
    import torch

    _log.warning(
        "torchvision %s was built for another torch than %s and works without its compiled operators; "
        "install both from the same source to have them",
        module.__version__,
        torch.__version__,
    )


def _unusable(error: Exception) -> ModelLoadError:
    import torch

    return ModelLoadError(
        f"torchvision cannot be imported ({error}); install the torchvision that belongs to "
        f"torch {torch.__version__}"
    )


def _forget_half_import(but: ModuleType | None = None) -> None:
    """Drop what a failed import left behind, so that the next one starts over."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        if sys.modules[name] is not but:
            del sys.modules[name]


@functools.cache
def _declare_missing_operators() -> torch.library.Library:
    """Declare the schemas once; the cache keeps the library, and with it the schemas, alive."""
    import torch  # programs that only ask for help do not wait for it

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _DETECTION_OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SCHEMA)  # type: ignore[no-untyped-call]
    return library
