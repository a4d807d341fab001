"""Cache what PyTorch looks up anew for every trace and every ONNX file."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._C import DispatchKey


@contextlib.contextmanager
def operators_listed_once() -> Iterator[None]:
    """Let PyTorch list and register operators with less work in the block, which may define no others.

    Each decomposition of a program lists all operators once for every namespace, 28 times, and registers
    11,000 kernels by a function whose annotations Python evaluates each time: 65 of the 290 ms of CPU time
    that tracing three residual blocks took. Other versions of PyTorch without these functions stay
    unchanged; results are the same with and without.
    """
    with (
        replaced("torch._export.utils", None, "_materialize_cpp_cia_ops", functools.cache),
        replaced("torch._ops", "OperatorBase", "py_impl", _plain_registration),
    ):
        yield


@contextlib.contextmanager
def onnx_forms_kept() -> Iterator[None]:
    """Cache the ONNX forms of PyTorch's operators for the next export; the caller adds none.

    onnxscript parses the source of 500 functions for each file, .4 of .75 s of CPU time for three residual
    blocks. Versions of PyTorch that do it differently stay unchanged; the files are the same.
    """
    with replaced("torch.onnx._internal.exporter._registration", "ONNXRegistry", "from_torchlib", _kept):
        yield


@contextlib.contextmanager
def replaced(module: str, owner: str | None, name: str, changed: Callable[[Any], Any]) -> Iterator[None]:
    """Replace ``module.owner.name`` by the result of ``changed`` in the block, if it exists."""
    try:
        place: Any = importlib.import_module(module)
        place = place if owner is None else getattr(place, owner)
        original = vars(place)[name]
    except (ImportError, AttributeError, KeyError):
        yield
        return
    setattr(place, name, changed(original))
    try:
        yield
    finally:
        setattr(place, name, original)


def _plain_registration(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A method ``py_impl`` without annotations; unusual cases are left to the original."""

    def py_impl(self: Any, key: Any) -> Any:
        if type(key) is not DispatchKey or key == DispatchKey.Python or key in self.py_kernels:
            return original(self, key)

        def register(kernel):  # type: ignore[no-untyped-def] # annotations are what takes the time
            self.py_kernels[key] = kernel
            self._dispatch_cache.clear()
            return kernel

        return register

    return py_impl


def _kept(original: Any) -> Any:
    def from_torchlib(owner: type, opset_version: int) -> Any:
        # Operators that a library adds later, such as those of torchvision, have their ONNX forms too.
        known = tuple(torch._C._dispatch_get_all_op_names())
        return _registry(original, owner, opset_version, known)

    return classmethod(from_torchlib)


@functools.lru_cache(maxsize=1)
def _registry(original: Any, owner: type, opset_version: int, _known: tuple[str, ...]) -> Any:
    return original.__get__(None, owner)(opset_version=opset_version)
