"""Where networks run while they are ranked, recovered and trained: this processor, or a GPU."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.node import map_aggregate

from edgeprune.artifacts.choices import ComputeDevice
from edgeprune.attributes import get_attribute, set_attribute
from edgeprune.errors import UsageError

CPU = torch.device("cpu")


def find_device(asked: ComputeDevice) -> torch.device:
    """The device of PyTorch that is asked for; ``AUTO`` is a GPU where there is one.

    Raises:
        UsageError: CUDA was asked for and PyTorch finds none.
    """
    if asked is ComputeDevice.CPU:
        return CPU
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if asked is ComputeDevice.AUTO:
        return CPU
    raise UsageError(
        f"--device {asked.value} was given, and PyTorch {torch.__version__} finds no CUDA device here; "
        "accepted are cpu, and auto, which takes a GPU where there is one"
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
    """Free memory of a GPU; 0 for the processor, whose memory others need, too."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


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
        UsageError: CUDA was asked for and PyTorch finds none.
    """
    if find_device(asked) == CPU:
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
