"""A GPU that calculates on the processor, so that what a GPU demands is tested where there is none.

Its tensors refuse to be mixed with those of the processor and to become arrays; it may lack double precision,
as Apple's GPUs do, and its memory may be as small as a test likes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "simulated"
ASKED_BY = "EDGEPRUNE_SIMULATED_GPU"
"""Set in a process of tests on it, see ``test_simulated_gpus.py``."""
_READ_ANYWHERE = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"})
"""Ops whose indices may be on the processor."""
_MOVES = frozenset({"_to_copy", "copy_"})
_SCALARS = frozenset({"_local_scalar_dense", "is_pinned", "equal"})


class _Backend:
    """What PyTorch asks a kind of device; other tests of the process find none of this kind."""

    def is_available(self) -> bool:
        return False

    def is_initialized(self) -> bool:
        return False

    def device_count(self) -> int:
        return 0

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass


class _Hook(torch._C._acc.PrivateUse1Hooks):
    """The same, asked from C++."""

    def is_available(self) -> bool:
        return False

    def has_primary_context(self, dev_id: int) -> bool:
        return False

    def is_built(self) -> bool:
        return True


@functools.cache
def simulated_device() -> torch.device:
    """The device; it is registered once in a process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend(), hook=_Hook())
    return torch.device(NAME, 0)


class _There(Tensor):
    """A tensor on the simulated GPU; ``inner`` holds its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> _There:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=simulated_device(),
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} met a tensor of the simulated GPU outside of it")


class SimulatedGpu(TorchDispatchMode):
    """While it is entered, the device is there.

    ``has_double``: whether it calculates in double precision. ``memory_bytes``: of all its tensors together.
    ``most_bytes`` is what they took at most.
    """

    def __init__(self, *, has_double: bool = True, memory_bytes: int | None = None) -> None:
        super().__init__()
        self.device = simulated_device()
        self.most_bytes = 0
        self.refusals = 0
        self._has_double = has_double
        self._memory_bytes = memory_bytes
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(isinstance(each, _There) for each in tensors)
        name = func.overloadpacket.__name__
        if there and name not in _MOVES:
            self._check_places(name, args, tensors)
        if (asked := kwargs.get("device")) is not None:
            there = torch.device(asked).type == NAME
            kwargs["device"] = torch.device("cpu")
        elif name == "copy_":
            there = isinstance(args[0], _There)
        found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if not there or name in _SCALARS:
            return found
        known = {id(each.inner): each for each in tensors if isinstance(each, _There)}
        return tree_map(lambda each: self._wrapped(each, known), found)

    def _check_places(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        checked = [args[0], *args[2:]] if name in _READ_ANYWHERE else tensors
        for each in tree_leaves(checked):
            if isinstance(each, Tensor) and not isinstance(each, _There) and each.dim() > 0:
                raise RuntimeError(f"Expected all tensors to be on the same device ({name})")

    def _wrapped(self, value: Any, known: dict[int, _There]) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in known:  # an op in place gives back what it was given
            return known[id(value)]
        if value.dtype is torch.float64 and not self._has_double:
            raise TypeError("the simulated GPU has no float64")
        self._hold(value)
        return _There(value)

    def _hold(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        if (key := storage._cdata) in self._held:
            return
        if (
            self._memory_bytes is not None
            and sum(self._held.values()) + storage.nbytes() > self._memory_bytes
        ):
            self.refusals += 1
            raise torch.OutOfMemoryError("CUDA out of memory. (simulated)")
        self._held[key] = storage.nbytes()
        self.most_bytes = max(self.most_bytes, sum(self._held.values()))
        weakref.finalize(storage, self._held.pop, key, None)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, _There) else value


def is_asked() -> bool:
    """Whether this process is for tests on the simulated GPU, which is made known before any gradient."""
    if os.environ.get(ASKED_BY) != "1":
        return False
    simulated_device()
    return True


@contextlib.contextmanager
def simulated_gpu(**settings: Any) -> Iterator[SimulatedGpu]:
    """The simulated GPU, for the length of a test."""
    gpu = SimulatedGpu(**settings)
    with gpu:
        yield gpu
