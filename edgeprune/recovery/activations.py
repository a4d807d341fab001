"""Activation cache: in memory, large activations in half precision, the overflow on disk."""

from __future__ import annotations

import logging
import mmap
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.accelerator import CPU, free_bytes
from edgeprune.storage.files import scratch_directory

_log = logging.getLogger("edgeprune.recovery")

Key = tuple[str, str, int]
"""Network, node and chunk."""

MEMORY_LIMIT_BYTES = 2**29
HALF_BEYOND_BYTES = 2**27
"""Of one node over all images: smaller ones stay in single precision, which costs nothing that counts."""
_LARGEST_HALF = 65504.0
GPU_SHARE = 1 / 3


_LEAST_APART_BYTES = 2**20
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
)


def _apart(value: Tensor) -> Tensor:
    """Return the tensor without memory shared with others; a large one is copied into its own pages.

    Long-lived blocks between short-lived ones would fragment the heap: on EfficientNet-Lite0, 500 images,
    half a GiB of activations made the process grow by 1.9 GB instead of 1.0.
    """
    size = value.numel() * value.element_size()
    if size < _LEAST_APART_BYTES or value.device.type != "cpu":
        own = value.untyped_storage().nbytes() == size
        return value if own and value.is_contiguous() else value.clone().contiguous()
    pages = mmap.mmap(-1, size, **_PRIVATE)
    return torch.frombuffer(pages, dtype=value.dtype).view(value.shape).copy_(value)


@dataclass(frozen=True, kw_only=True)
class _Spilled:
    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: torch.device


class ActivationStore:
    """Tensors by (network, node, chunk); beyond ``memory_limit_bytes`` each is spilled to its own file.

    Use it as a context manager, which deletes the files on exit. Tensors that cannot be written to disk stay
    in memory; ``notes`` records that. Those of a GPU may take ``gpu_share`` of what is free there.
    """

    def __init__(
        self,
        *,
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        device: torch.device = CPU,
        gpu_share: float = GPU_SHARE,
    ) -> None:
        self._limit = max(memory_limit_bytes, int(gpu_share * free_bytes(device)))
        self._held: dict[Key, Any] = {}
        self._used = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._disk_is_full = False
        self._written = 0
        self.notes: list[str] = []
        self.spilled_bytes = 0

    def __enter__(self) -> ActivationStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def put(self, key: Key, value: Any, *, half: bool = False) -> None:
        """Store a value; with ``half``, in half precision where its range allows it."""
        if not isinstance(value, Tensor):
            self._held[key] = value
            return
        if half and value.dtype is torch.float32 and float(value.abs().amax()) < _LARGEST_HALF:
            value = value.half()
        size = value.numel() * value.element_size()
        if self._used + size > self._limit and not self._disk_is_full:
            spilled = self._spill(value)
            if spilled is not None:
                self._held[key] = spilled
                return
        self._held[key] = _apart(value)
        self._used += size

    def get(self, key: Key) -> Any:
        """Return a stored value; half-precision tensors are converted to float32."""
        value = self._held[key]
        if isinstance(value, _Spilled):
            array = np.fromfile(value.path, dtype=value.dtype).reshape(value.shape)
            value = torch.from_numpy(array).to(value.device)
        return value.float() if isinstance(value, Tensor) and value.dtype is torch.float16 else value

    def drop(self, key: Key) -> None:
        """Remove a value if it is stored."""
        value = self._held.pop(key, None)
        if isinstance(value, _Spilled):
            value.path.unlink(missing_ok=True)
        elif isinstance(value, Tensor):
            self._used -= value.numel() * value.element_size()

    def _spill(self, value: Tensor) -> _Spilled | None:
        """Write a tensor to a file; ``None``, noted once, if the disk cannot take it."""
        try:
            if self._folder is None:
                self._folder = scratch_directory("activations-")
            path = Path(self._folder.name) / str(self._written)
            array = value.detach().contiguous().cpu().numpy()
            try:
                array.tofile(path)
            except OSError:
                path.unlink(missing_ok=True)  # free the space of the partial file
                raise
        except OSError as error:
            self._disk_is_full = True
            self.notes.append(
                f"activations beyond {self._limit / 2**30:.2g} GiB stay in memory, since the temporary "
                f"folder does not take them ({error}); set TMPDIR to a folder with more room"
            )
            return None
        self._written += 1
        self.spilled_bytes += array.nbytes
        return _Spilled(path=path, shape=tuple(array.shape), dtype=array.dtype, device=value.device)
