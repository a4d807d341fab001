"""Memory that a pass with gradients saves for the backward pass, and parts of a batch that fit."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

_log = logging.getLogger("edgeprune.games")

Result = TypeVar("Result")


def saved_bytes_per_image(run: Callable[[int], Tensor]) -> int:
    """Bytes that autograd saves per additional image; ``run`` gives a result of a number of images.

    Measured as the difference between two images and one, so that weights, which do not depend on the number
    of images, do not count.
    """
    return max(0, _saved_bytes(lambda: run(2)) - _saved_bytes(lambda: run(1)))


def even_parts(count: int, most: int) -> list[slice]:
    """Slices of at most ``most`` items each that cover ``count``, as few and as even as possible."""
    parts = -(-count // most)
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def in_memory(parts: list[slice], compute: Callable[[slice], Result]) -> Iterator[tuple[slice, Result]]:
    """Results of ``compute`` part by part; a part that the memory of a GPU does not hold is halved.

    Raises:
        torch.OutOfMemoryError: it does not hold a single item.
    """
    left = parts[::-1]
    while left:
        part = left.pop()
        try:
            found = compute(part)
        except torch.OutOfMemoryError:
            middle = (part.start + part.stop) // 2
            if middle == part.start:
                raise
            _log.warning("the memory of the GPU does not hold %d images at once", part.stop - part.start)
            left += [slice(middle, part.stop), slice(part.start, middle)]
        else:
            yield part, found
            continue
        torch.cuda.empty_cache()  # outside the handler, whose traceback holds what filled the memory


def _saved_bytes(run: Callable[[], Tensor]) -> int:
    """Bytes saved by one pass; tensors that share their memory count once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        # Not the tensor itself: a result of the operation would form a reference cycle with it.
        return tensor.detach()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(kept.values())
