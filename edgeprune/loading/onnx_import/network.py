"""The imported network: layers by their names, and the steps of its forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.attributes import get_attribute


@dataclass(frozen=True)
class Activation:
    """A tensor that an earlier step gave."""

    name: str


@dataclass(frozen=True)
class Stored:
    """A tensor of the module; along ``repeated`` it is repeated for every image."""

    path: str
    repeated: int | None = None


Operand = Activation | Stored | float | int | bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation: a layer by its path, or a function; ``released`` are no longer needed behind it."""

    operation: str | Callable[..., Any]
    operands: tuple[Operand, ...]
    outputs: tuple[str, ...]
    with_batch: bool = False
    released: tuple[str, ...] = ()


class ImportedNetwork(nn.Module):
    """A network of an ONNX file: images (batch, ...) in, a tensor or a tuple of tensors out."""

    def __init__(self, image: str, steps: tuple[Step, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self._image, self._steps, self._outputs = image, steps, outputs

    def forward(self, images: Tensor) -> Any:
        """Run all steps."""
        return self.traced(images, lambda _name, _value: None)

    def traced(self, images: Tensor, seen: Callable[[str, Any], None]) -> Any:
        """Run all steps; ``seen`` is told the name in the file and the value of each activation."""
        batch = images.shape[0]
        seen(self._image, images)
        values: dict[str, Any] = {self._image: images}
        for step in self._steps:
            operands = [self._value(operand, values, batch) for operand in step.operands]
            if isinstance(step.operation, str):
                result = self.get_submodule(step.operation)(*operands)
            else:
                result = step.operation(batch, *operands) if step.with_batch else step.operation(*operands)
            given = result if isinstance(result, (tuple, list)) else (result,)
            for name, value in zip(step.outputs, given, strict=False):
                values[name] = value
                seen(name, value)
            for name in step.released:
                values.pop(name, None)
        outputs = tuple(values[name] for name in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _value(self, operand: Operand, values: dict[str, Any], batch: Any) -> Any:
        if isinstance(operand, Activation):
            return values[operand.name]
        if not isinstance(operand, Stored):
            return operand
        tensor = get_attribute(self, operand.path)
        if operand.repeated is None:
            return tensor
        sizes = list(tensor.shape)
        sizes[operand.repeated] = batch
        return tensor.expand(sizes)


def place(network: nn.Module, path: str, value: nn.Module | Tensor) -> None:
    """Put a layer, parameter or buffer at a dotted path, with the modules on the way."""
    *folders, leaf = path.split(".")
    owner = network
    for folder in folders:
        if folder not in owner._modules:
            owner.add_module(folder, nn.Module())
        owner = owner.get_submodule(folder)
    if isinstance(value, nn.Module):
        owner.add_module(leaf, value)
    elif isinstance(value, nn.Parameter):
        owner.register_parameter(leaf, value)
    else:
        owner.register_buffer(leaf, torch.as_tensor(value))
