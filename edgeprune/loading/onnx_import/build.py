"""From the folded graph of an ONNX file to a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from edgeprune.errors import ModelLoadError
from edgeprune.loading.onnx_import import operators
from edgeprune.loading.onnx_import.folding import FoldedFile, batch_freed
from edgeprune.loading.onnx_import.names import Names, layer_name
from edgeprune.loading.onnx_import.network import Activation, ImportedNetwork, Operand, Step, Stored, place
from edgeprune.loading.onnx_import.operators.elementwise import as_number
from edgeprune.loading.onnx_import.site import Imported, Operation, Site, WithBatch
from edgeprune.loading.onnx_import.table import OPERATORS
from edgeprune.loading.onnx_import.values import (
    Array,
    Constant,
    ImageIndices,
    Repeated,
    Sizes,
    UnknownFormError,
)
from edgeprune.showing import first_few
from edgeprune.system.imports import first_line

_STANDARD = ("", "ai.onnx")
_SHOWN = 5
assert operators.__all__  # importing it fills the table


def build(folded: FoldedFile, file: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A module with the file's weights, in evaluation mode, and notes on what differs from the file.

    Raises:
        ModelLoadError: names the node and operator that is not known, or not in this form.
    """
    builder = _Builder(folded, file)
    for node in folded.graph:
        builder.add(node)
    return builder.network(), builder.notes()


class _Builder:
    """Steps and tensors of the nodes added so far."""

    def __init__(self, folded: FoldedFile, file: str) -> None:
        self._folded, self._file = folded, file
        self._names = Names()
        self._steps: list[Step] = []
        self._tensors: dict[str, nn.Module | torch.Tensor] = {}
        self._layers: dict[object, list[str]] = {}
        self._readers: dict[str, list[str]] = {}
        self._constants: dict[object, str] = {}
        self._aliases: dict[str, str] = {}

    def add(self, node: ir.Node) -> None:
        """Import a node."""
        if node.op_type == "Constant" or str(node.outputs[0].name) in self._aliases:
            return
        try:
            if node.domain not in _STANDARD or node.op_type not in OPERATORS:
                raise UnknownFormError("is not known")
            self._import_within_the_standard(node)
        except UnknownFormError as reason:
            domain = "" if node.domain in _STANDARD else f"{node.domain}."
            raise ModelLoadError(
                f"{self._file} cannot be imported: node {node.name or node.outputs[0].name!r} "
                f"({domain}{node.op_type}, opset {self._folded.opset}) {reason}; give the torch model, or "
                "export it without that operator or form"
            ) from reason

    def _import_within_the_standard(self, node: ir.Node) -> None:
        """Import a node; whatever its attributes and weights do to torch becomes a form that is not known."""
        try:
            self._import(node)
        except UnknownFormError:
            raise
        except Exception as reason:
            raise UnknownFormError(f"has a form that is not known ({first_line(reason)})") from reason

    def _import(self, node: ir.Node) -> None:
        fixed = self._folded.fixed_batch is not None
        constants = batch_freed(self._folded, node) if fixed else self._folded.constants
        bias = _bias_behind(node, constants)
        site = Site(
            node,
            self._folded.opset,
            constants,
            self._folded.batch_dims,
            fixed_batch=self._folded.fixed_batch,
            bias=None if bias is None else bias[1],
        )
        imported = OPERATORS[node.op_type](site)
        site.check_asked()
        operands = self._operands(site)
        outputs = tuple(str(value.name) for value in node.outputs)
        if bias is not None and isinstance(imported, nn.Linear):
            outputs = (str(bias[0].outputs[0].name),)
            self._aliases[outputs[0]] = outputs[0]
        self._append(site, imported, operands, outputs)

    def _append(
        self, site: Site, imported: Imported, first: tuple[Operand, ...], outputs: tuple[str, ...]
    ) -> None:
        """Steps of an operation, or of several in a row."""
        several = imported if isinstance(imported, list) else [imported]
        read = first
        for number, operation in enumerate(several):
            last = number == len(several) - 1
            between = (f"{outputs[0]}:{number}",)
            plain = operation.function if isinstance(operation, WithBatch) else operation
            self._steps.append(
                Step(
                    operation=self._layer(site, plain) if isinstance(plain, nn.Module) else plain,
                    operands=read,
                    outputs=outputs if last else between,
                    with_batch=isinstance(operation, WithBatch),
                )
            )
            read = (Activation(between[0]),)

    def _layer(self, site: Site, layer: Operation) -> str:
        """Path of a layer; nodes that make the same of the same weights share one."""
        assert isinstance(layer, nn.Module)
        node = site.node
        read = tuple(value.name if value is not None else None for value in node.inputs)
        weights = tuple(name for name in read if name in self._folded.constants)
        alike = self._layers.setdefault((str(layer), weights), [])
        known = next((path for path in alike if _same_values(self._tensors[path], layer)), None)
        if known is not None:
            return known
        path = self._names.claim(layer_name(node.name, weights[0] if weights else None, node.op_type))
        self._tensors[path] = layer
        alike.append(path)
        if any(parameter.ndim > 1 for parameter in layer.parameters()):
            self._readers.setdefault(str(weights[0]) if weights else path, []).append(path)
        return path

    def notes(self) -> tuple[str, ...]:
        """Weights of the file that several layers have here."""
        return tuple(
            f"the file's weight {name!r} is read in different ways (transposed, scaled, or with other biases "
            f"or attributes) by {first_few(paths, _SHOWN)}: each has a copy of its own here, and in what is "
            "written"
            for name, paths in self._readers.items()
            if len(paths) > 1
        )

    def _operands(self, site: Site) -> tuple[Operand, ...]:
        """What is handed to the operation: images' tensors, stored ones and numbers."""
        operands: list[Operand] = []
        for index, value in enumerate(site.inputs):
            if index in site.taken or value is None:
                continue
            constant = site.constants.get(str(value.name))
            if constant is None:
                operands.append(Activation(str(value.name)))
                continue
            number = as_number(constant) if isinstance(constant, np.ndarray) else None
            if number is not None and site.numbers and _rank(constant) <= site.widest():
                operands.append(number)
            else:
                operands.append(self._stored(str(value.name), constant))
        wished = site.node.name or site.node.op_type
        operands += [self._stored(f"{wished}.places", array) for array in site.stored]
        return tuple(operands)

    def _stored(self, name: str, constant: Constant) -> Stored:
        if isinstance(constant, Sizes | ImageIndices):
            raise UnknownFormError(f"reads numbers {name!r} that change with the batch")
        values, axis = (
            (constant.values, constant.axis) if isinstance(constant, Repeated) else (constant, None)
        )
        key = (name, values.shape, values.dtype.str, values.tobytes())
        if key not in self._constants:
            path = self._names.claim(name)
            self._tensors[path] = _tensor(values)
            self._constants[key] = path
        return Stored(self._constants[key], axis)

    def network(self) -> nn.Module:
        """The module of all nodes."""
        outputs = tuple(str(value.name) for value in self._folded.graph.outputs)
        known = {name for step in self._steps for name in step.outputs} | {self._folded.input_name}
        missing = next((name for name in outputs if name not in known), None)
        if missing is not None:
            raise ModelLoadError(
                f"{self._file} has an output {missing!r} that does not depend on the image; accepted are "
                "outputs that do"
            )
        network = ImportedNetwork(self._folded.input_name, _released(self._steps, outputs), outputs)
        for path, value in self._tensors.items():
            place(network, path, value)
        return network.eval()


def _same_values(known: nn.Module | torch.Tensor, layer: nn.Module) -> bool:
    """Whether a layer of one form has these weights: that of the file may be transposed for one node."""
    assert isinstance(known, nn.Module)
    ours, others = known.state_dict(), layer.state_dict()
    return ours.keys() == others.keys() and all(torch.equal(ours[name], others[name]) for name in ours)


def _rank(constant: Constant) -> int:
    return constant.ndim if isinstance(constant, np.ndarray) else 0


def _tensor(values: Array) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(values))
    return nn.Parameter(tensor) if tensor.is_floating_point() else tensor


def _bias_behind(node: ir.Node, constants: Mapping[str, Constant]) -> tuple[ir.Node, Array] | None:
    """The ``Add`` of a constant vector that alone reads a matrix product, and that vector."""
    uses = tuple(node.outputs[0].uses())
    if node.op_type != "MatMul" or len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    adding = uses[0].node
    weight = None if node.inputs[1] is None else constants.get(str(node.inputs[1].name))
    others = [value for value in adding.inputs if value is not None and value is not node.outputs[0]]
    if adding.op_type != "Add" or len(others) != 1 or not isinstance(weight, np.ndarray) or weight.ndim != 2:
        return None
    bias = constants.get(str(others[0].name))
    if (
        not isinstance(bias, np.ndarray)
        or bias.size != weight.shape[1]
        or bias.shape[-1:] != weight.shape[1:]
    ):
        return None
    rank = None if node.outputs[0].shape is None else len(node.outputs[0].shape)
    return (adding, bias.reshape(-1)) if rank is not None and bias.ndim <= rank else None


def _released(steps: list[Step], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """Steps that forget tensors behind their last reader."""
    last: dict[str, int] = {}
    for number, step in enumerate(steps):
        for name in (*step.outputs, *(o.name for o in step.operands if isinstance(o, Activation))):
            last[name] = number
    released: dict[int, list[str]] = {}
    for name, number in last.items():
        if name not in outputs:
            released.setdefault(number, []).append(name)
    return tuple(replace(step, released=tuple(released.get(number, ()))) for number, step in enumerate(steps))
