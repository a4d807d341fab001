"""Checks of tensors used as weights: dense, real, with values, and not much larger than their storage."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from edgeprune.errors import EdgepruneError, ModelLoadError

_ACCEPTED = "accepted are dense tensors of real numbers, such as float32"
_WHOLE_TYPES = {
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64),
}
_FREE_BYTES = 256 << 20
_SHARED = 4
"""Tensors may share what is stored, as tied weights do, or repeat it, up to this many times."""


def check_tensors(
    tensors: Iterable[tuple[str, Tensor]], source: str, *, error: type[EdgepruneError] = ModelLoadError
) -> None:
    """Reject tensors that cannot be used as weights.

    Raises:
        EdgepruneError: of class ``error``; names the tensor, what it is and what is accepted.
    """
    named = list(tensors)
    for name, tensor in named:
        if (what := _unusual(tensor)) is not None:
            raise error(
                f"the tensor {name!r} in {source!r} is {what}; {_ACCEPTED}: convert it, or leave it out"
            )
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for _, t in named}
    limit_bytes = _SHARED * sum(stored.values()) + _FREE_BYTES
    needed_bytes = 0
    for name, tensor in named:
        needed_bytes += tensor.numel() * tensor.element_size()
        if needed_bytes > limit_bytes:
            raise error(
                f"the tensors in {source!r} up to {name!r} would take {needed_bytes / 2**30:.1f} GiB by "
                f"repeating {sum(stored.values()) / 2**20:.1f} MiB, and at most "
                f"{limit_bytes / 2**30:.1f} GiB are accepted; save plain copies of them"
            )


def _unusual(tensor: Tensor) -> str | None:
    if is_lazy(tensor):
        return "not initialised (a lazy module that has seen no input)"
    if tensor.device.type == "meta":
        return "without values (device meta)"
    if tensor.is_quantized:
        return f"quantized ({tensor.dtype})"
    if tensor.is_nested or tensor.layout is not torch.strided:
        return f"sparse or nested ({tensor.layout})"
    if tensor.is_complex():
        return f"complex ({tensor.dtype})"
    if not tensor.is_floating_point() and tensor.dtype not in _WHOLE_TYPES:
        return f"of an unusual type ({tensor.dtype})"
    return None


def check_finite(
    tensors: Iterable[tuple[str, Tensor]],
    source: str,
    *,
    error: type[EdgepruneError] = ModelLoadError,
    remedy: str = "give a checkpoint from before the training diverged",
) -> None:
    """Reject weights with NaN or infinite values.

    Raises:
        EdgepruneError: of class ``error``; names the first tensor and how many more there are.
    """
    bad = [name for name, tensor in tensors if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise error(f"{source!r} has NaN or infinite values in {bad[0]!r}{more}; {remedy}")


def check_conversion(
    name: str, given: Tensor, expected: Tensor, source: str, *, error: type[EdgepruneError] = ModelLoadError
) -> None:
    """Reject weights whose type cannot be converted to the architecture's without loss or error.

    Floating-point types are converted to each other; booleans and integers are not accepted as weights.

    Raises:
        EdgepruneError: of class ``error``; names the tensor, its type and the one that is accepted.
    """
    if given.dtype == expected.dtype or (given.is_floating_point() and expected.is_floating_point()):
        return
    if not expected.is_floating_point() and torch.equal(given.to(expected.dtype).to(given.dtype), given):
        return
    kind = "boolean" if given.dtype is torch.bool else f"of {given.dtype}"
    raise error(
        f"the tensor {name!r} in {source!r} is {kind} and the architecture has {expected.dtype} there; "
        f"{_ACCEPTED}: save the weights that were trained"
    )
