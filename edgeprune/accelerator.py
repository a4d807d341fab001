"""Where networks run while they are ranked, recovered and trained: this processor, or a GPU."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.node import map_aggregate

from edgeprune.artifacts.choices import ComputeDevice
from edgeprune.attributes import get_attribute, set_attribute
from edgeprune.errors import UsageError
from edgeprune.system.imports import first_line

_log = logging.getLogger("edgeprune.accelerator")

CPU = torch.device("cpu")
_MPS = torch.device("mps", 0)  # with its number, since tensors there have it
_WITHOUT_DOUBLE = frozenset({"mps"})
_MPS_IS_FULL = "MPS backend out of memory"

Result = TypeVar("Result")


def find_device(asked: ComputeDevice) -> torch.device:
    """The device of PyTorch that is asked for; ``AUTO`` is a CUDA GPU where there is one.

    Raises:
        UsageError: a GPU was asked for and PyTorch finds none of that kind.
    """
    if asked is ComputeDevice.MPS and torch.backends.mps.is_available():
        return _MPS
    if asked in (ComputeDevice.CUDA, ComputeDevice.AUTO) and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if asked in (ComputeDevice.CPU, ComputeDevice.AUTO):
        return CPU
    lacking = "CUDA device" if asked is ComputeDevice.CUDA else "GPU of Apple's (MPS)"
    raise UsageError(
        f"--device {asked.value} was given, and PyTorch {torch.__version__} finds no {lacking} here; "
        "accepted are cpu, and auto, which takes a CUDA GPU where there is one"
    )


def in_words(device: torch.device) -> str:
    """Name of a device for the report."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def device_of(module: nn.Module) -> torch.device:
    """Where the tensors of a module are; the processor for one without any."""
    held = next(itertools.chain(module.parameters(), module.buffers()), None)
    return CPU if held is None else held.device


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; 0 where it is that of the processor, which others need, too."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def where_exact(device: torch.device) -> torch.device:
    """Where sums in double precision are: there, or on the processor if the device has no float64."""
    return CPU if device.type in _WITHOUT_DOUBLE else device


def exact(value: Tensor) -> Tensor:
    """A tensor in double precision, :func:`where_exact` says where."""
    return value.to(where_exact(value.device)).double()


def is_full(error: BaseException) -> bool:
    """Whether an exception says that the memory of a GPU does not hold what was asked of it."""
    return isinstance(error, torch.OutOfMemoryError) or _MPS_IS_FULL in str(error)


def even_parts(count: int, most: int) -> list[slice]:
    """Slices of at most ``most`` items each that cover ``count``, as few and as even as possible."""
    parts = -(-count // most)
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def parts_of(count: int, most: int) -> list[slice]:
    """Slices of ``most`` items each that cover ``count``; the last may have fewer."""
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]


def in_memory(parts: list[slice], compute: Callable[[slice], Result]) -> Iterator[tuple[slice, Result]]:
    """Results of ``compute`` part by part; a part that the memory of a GPU does not hold is halved.

    ``compute`` must leave nothing behind where it fails.

    Raises:
        torch.OutOfMemoryError, RuntimeError: it does not hold a single item.
    """
    left = parts[::-1]
    while left:
        part = left.pop()
        try:
            found = compute(part)
        except RuntimeError as error:
            middle = (part.start + part.stop) // 2
            if not is_full(error) or middle == part.start:
                raise
            _log.warning("the memory of the GPU does not hold %d images at once", part.stop - part.start)
            left += [slice(middle, part.stop), slice(part.start, middle)]
        else:
            yield part, found
            continue
        give_back()  # outside the handler, whose traceback holds what filled the memory


def give_back() -> None:
    """Return memory of a GPU that is held for reuse."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def moved(module: GraphModule, device: torch.device) -> GraphModule:
    """A copy of a captured graph on another device, the module itself where it is there already.

    Its constants move, too, and ops that create tensors create them there.
    """
    if device_of(module) == device:
        return module
    copied = copy.deepcopy(module).to(device)
    for node in copied.graph.nodes:
        if node.op == "get_attr":
            value = get_attribute(copied, str(node.target))
            if isinstance(value, Tensor) and value.device != device:
                set_attribute(copied, str(node.target), value.to(device))
            continue
        node.args, node.kwargs = (_on(part, device) for part in (node.args, node.kwargs))
    copied.recompile()
    return copied


def _on(arguments: Any, device: torch.device) -> Any:
    """Arguments of a node with every device in them replaced."""
    return map_aggregate(arguments, lambda each: device if isinstance(each, torch.device) else each)


@contextmanager
def repeatable(asked: ComputeDevice) -> Iterator[None]:
    """Compute convolutions on a GPU in full single precision, the same way each time.

    Raises:
        UsageError: a GPU was asked for and PyTorch finds none, or one of Apple's lacks an operator.
    """
    device = find_device(asked)
    if device == CPU:
        yield
        return
    if device == _MPS:
        try:
            yield
        except NotImplementedError as error:
            raise UsageError(
                f"--device mps was given, and PyTorch {torch.__version__} lacks something for it "
                f"({first_line(error)}); accepted is a network of operators that it has: give --device "
                "cpu, or set PYTORCH_ENABLE_MPS_FALLBACK=1, so that it computes those on the processor"
            ) from error
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
