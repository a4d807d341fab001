"""Memory that a pass with gradients saves for the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def saved_bytes_per_image(run: Callable[[int], Tensor]) -> int:
    """Bytes that autograd saves per additional image; ``run`` gives a result of a number of images.

    Measured as the difference between two images and one, so that weights, which do not depend on the number
    of images, do not count.
    """
    return max(0, _saved_bytes(lambda: run(2)) - _saved_bytes(lambda: run(1)))


def _saved_bytes(run: Callable[[], Tensor]) -> int:
    """Bytes saved by one pass; tensors that share their memory count once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            kept[id(storage)] = storage.nbytes()
        # Not the tensor itself: a result of the operation would form a reference cycle with it.
        return tensor.detach()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(kept.values())
