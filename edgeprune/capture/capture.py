"""Capture a module as a functional ATen graph whose batch dimension is dynamic."""

from __future__ import annotations

import copy
import inspect
import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen

from edgeprune.artifacts.model import CapturedModel, InputShape, InputShapes
from edgeprune.attributes import get_attribute, has_attribute, set_attribute
from edgeprune.capture.batch import PerImage
from edgeprune.capture.canonical import (
    drop_assertions,
    four_dimensional_attention,
    reshape_views,
    unfold_heads,
)
from edgeprune.capture.cautions import active_random_ops, batch_statistics_notes
from edgeprune.capture.export import shapes_of, with_dynamic_batch
from edgeprune.capture.folding import fold_computed_weights
from edgeprune.capture.inputs import input_shapes, random_inputs
from edgeprune.capture.values import check_values, constant_notes
from edgeprune.errors import CaptureError
from edgeprune.fx import op_name, tensor_leaves
from edgeprune.plain_names import code_name
from edgeprune.system.imports import ended_in_the_open, first_line, user_code
from edgeprune.system.quiet import quiet_streams

_log = logging.getLogger("edgeprune.capture.capture")
_CHECK_BATCH = 3
_OTHER_CHECK_BATCH = 5
"""Where a capture has seen a batch of 3."""
_REASON_LENGTH = 300
_TOLERANCE = 1e-4
_FIXED_PROGRAM = re.compile(r"Expected input at \S+\.shape\[0\] to be equal to (\d+)")
"""How a program answers to another batch than that of its export."""


def capture(module: nn.Module, input_shape: InputShape | InputShapes) -> CapturedModel:
    """Capture ``module`` for inputs (batch, *input_shape) of float32 with ``torch.export``.

    Several inputs are given by one shape each, ``((3, 32, 32), (5,))``, in the order of the forward method;
    they share their batch. The graph is functional (no in-place op), keeps the user's parameter names,
    returns one tensor or a tuple of tensors (those of nested tuples, lists, dicts and dataclasses, in order),
    and is checked against the module on a batch size not used in the export. If the images of a
    batch affect each other, the logger ``edgeprune.capture.capture`` warns and ``notes`` say so.

    Raises:
        CaptureError: the shapes are malformed, the export fails, the batch cannot be dynamic, or the captured
            graph disagrees.
    """
    shapes = input_shapes(input_shape)
    generator = torch.Generator().manual_seed(0)
    examples = random_inputs(shapes, 2, generator)
    module, outputs = _for_batches(module, examples)
    program, changed, batch_notes = with_dynamic_batch(module, outputs, examples)
    names = {plain: code_name(own) for plain, own in changed.items()}
    graph_module = _flatten_signature(program, names)
    drop_assertions(graph_module)
    fold_computed_weights(graph_module)
    unfold_heads(graph_module)
    four_dimensional_attention(graph_module)
    reshape_views(graph_module)
    _check_inputs(graph_module, shapes)
    others = random_inputs(shapes, _OTHER_CHECK_BATCH if batch_notes else _CHECK_BATCH, generator)
    expected = _run_other_batch(module, others)
    _check_outputs(expected, outputs, len(others[0]))
    check_values(module, expected)
    _check_repeats(module, graph_module, others, expected)
    got = _run_other_batch(graph_module, others)
    _check_agreement(expected, got)
    notes = batch_statistics_notes(graph_module) or _batch_notes(graph_module, others, got)
    notes += (*batch_notes, *constant_notes(expected))
    for note in notes:
        _log.warning(note)
    parameters = sum(p.numel() for p in graph_module.parameters())
    return CapturedModel(
        graph_module=graph_module,
        input_shapes=shapes,
        num_parameters=parameters,
        notes=notes,
        own_names={names[plain]: own for plain, own in changed.items() if names[plain] != own},
    )


def _run(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Outputs for copies of the inputs: the model may change them in place."""
    with torch.no_grad(), ended_in_the_open():
        return module(*(i.clone() for i in inputs))


def _for_batches(module: nn.Module, examples: tuple[Tensor, ...]) -> tuple[nn.Module, Any]:
    """The model and its outputs; one that runs on single images alone is given image by image."""
    outputs: Any = None
    try:
        outputs = _run_once(module, examples)
        if _carry_batch(outputs, len(examples[0])):
            return module, outputs
    except CaptureError:
        single = _run_by_image(module, examples)
        if single is None or _runs(module, examples):  # what raises only sometimes is told as it is
            raise
        return single
    return _run_by_image(module, examples) or (module, outputs)


def _runs(module: nn.Module, examples: tuple[Tensor, ...]) -> bool:
    try:
        _run(module, examples)
    except Exception:  # of a user's code
        return False
    return True


def _run_by_image(module: nn.Module, examples: tuple[Tensor, ...]) -> tuple[nn.Module, Any] | None:
    single = PerImage(module)
    try:
        outputs = _run(single, examples)
    except Exception:  # of a user's code: whatever it is, the model runs on no single image, either
        return None
    return (single, outputs) if _carry_batch(outputs, len(examples[0])) else None


def _carry_batch(outputs: Any, batch: int) -> bool:
    return all(t.dim() and len(t) == batch for t in tensor_leaves(outputs))


def _run_once(module: nn.Module, examples: tuple[Tensor, ...]) -> Any:
    """Outputs of the model; reports a wrong number or shape of inputs before the export is tried."""
    _check_arguments(module, examples)
    try:
        return _run(module, examples)
    except Exception as error:
        reason = first_line(error, _REASON_LENGTH)
        if (fixed := _FIXED_PROGRAM.search(reason)) is not None:
            raise CaptureError(
                f"the program was exported for a fixed batch of {fixed[1]}; accepted is a dynamic batch: "
                "export the model again with dynamic_shapes={0: torch.export.Dim('batch')} for each of its "
                "inputs"
            ) from error
        if len(examples) > 1:
            raise CaptureError(
                f"the model does not run on inputs of the shapes {shapes_of(examples)} ({reason}); give "
                "every input, in the order of the model's forward method, of the shape that it takes, and "
                "convert to whole numbers inside the model, such as tokens.long(): all inputs are float32"
            ) from error
        (example,) = examples
        first = next((m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)), None)
        if first is not None and example.dim() > 1 and first != example.shape[1]:
            reason = f"its first convolution takes {first} channels"
        raise CaptureError(
            f"the model does not run on inputs of the shape {shapes_of(examples)}, channels x height x "
            f"width ({reason}); give images of the shape that it was trained on, or name that shape with "
            "--input-shape"
        ) from error


def _check_arguments(module: nn.Module, examples: tuple[Tensor, ...]) -> None:
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return  # not written in Python: running it will show
    try:
        signature.bind(*examples)
    except TypeError as error:
        if len(examples) == 1:
            raise CaptureError(
                f"the model cannot be called with one image tensor ({error}); accepted is one input, or "
                "calibration data with an array for each; what is the same for all images may be given by "
                "--input NAME=FILE.npy (inspect takes one --input-shape an input)"
            ) from error
        raise CaptureError(
            f"the model cannot be called with {len(examples)} tensors ({error}); give one shape for each "
            "input of its forward method, in order"
        ) from error


def _flatten_signature(program: Any, names: Mapping[str, str]) -> GraphModule:
    """A plain GraphModule: positional inputs, bare outputs, no guards and no dead code.

    ``names`` maps tensor names of the program to new ones where they differ.
    """
    with quiet_streams():
        source = program.module(check_guards=False)
    root = nn.Module()
    graph = Graph()
    output = graph.graph_copy(source.graph, {})
    flat = [v for v in _leaves(output) if _is_tensor(v)]
    graph.output(flat[0] if len(flat) == 1 else tuple(flat))
    graph.set_codegen(CodeGen())
    for node in list(graph.nodes):
        # Writes to buffers or inputs are dropped: a captured graph has no state.
        if node.op == "call_module" or (op_name(node) == "copy_" and not node.users):
            graph.erase_node(node)
    graph.eliminate_dead_code()
    for name, parameter in source.named_parameters(remove_duplicate=False):
        copied = nn.Parameter(parameter.detach().clone(), requires_grad=False)
        set_attribute(root, names.get(name, name), copied)
    for name, buffer in source.named_buffers(remove_duplicate=False):
        set_attribute(root, names.get(name, name), buffer.detach().clone())
    for node in graph.nodes:
        if node.op == "placeholder" and node.name.startswith("__"):
            node.target = f"input{node.name}"
            node._rename(node.target)
        if node.op != "get_attr":
            continue
        given, node.target = node.target, names.get(node.target, node.target)
        if not has_attribute(root, node.target):
            set_attribute(root, node.target, copy.deepcopy(get_attribute(source, given)))
    graph_module = GraphModule(root, graph, class_name="CapturedGraph")
    graph_module.train(False)
    return graph_module


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    return [value]


def _is_tensor(leaf: Any) -> bool:
    """Whether an output is a tensor rather than ``None``, a constant or a size."""
    return isinstance(leaf, Node) and isinstance(leaf.meta.get("val", Tensor()), Tensor)


def _check_inputs(graph_module: GraphModule, shapes: InputShapes) -> None:
    names = [n.name for n in graph_module.graph.nodes if n.op == "placeholder"]
    if len(names) != len(shapes):
        raise CaptureError(
            f"the captured graph takes {len(names)} inputs ({', '.join(names)}) where {len(shapes)} shapes "
            "were given; accepted is one tensor for each shape: wrap the model so that the others are "
            "constants"
        )


def _run_other_batch(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs for a batch size not used in the export."""
    try:
        return tensor_leaves(_run(module, inputs))
    except Exception as error:
        raise CaptureError(
            f"the model runs on a batch of 2 images but not of {len(inputs[0])} "
            f"({first_line(error, _REASON_LENGTH)}); "
            "make its forward pass independent of the batch size, or export it with a dynamic batch"
        ) from error


def _check_repeats(
    module: nn.Module, graph_module: GraphModule, inputs: tuple[Tensor, ...], outputs: list[Tensor]
) -> None:
    remedy = "make its forward pass independent of earlier calls"
    with user_code("the model, run again on the same inputs,", CaptureError, remedy):
        again = tensor_leaves(_run(module, inputs))
    differs = _first_difference(outputs, again)
    if differs is None:
        return
    drawn = active_random_ops(graph_module)
    cause = f"draws random numbers, at {drawn}" if drawn else "draws random numbers or keeps a state"
    raise CaptureError(
        f"the model in evaluation mode gives another {differs} when it runs on the same inputs again: it "
        f"{cause}; accepted is a forward pass that always gives the same: make it deterministic"
    )


def _check_agreement(expected: list[Tensor], got: list[Tensor]) -> None:
    differs = _first_difference(expected, got)
    if differs is not None:
        raise CaptureError(
            f"the captured graph disagrees with the model on {differs} for a batch of {_CHECK_BATCH}: the "
            "model depends on its batch size; make its forward pass independent between images"
        )


def _first_difference(expected: list[Tensor], got: list[Tensor]) -> str | None:
    """Describe the first difference beyond rounding; ``None`` if there is none."""
    if len(expected) != len(got):
        return f"number of outputs ({len(got)} for {len(expected)})"
    for index, (a, b) in enumerate(zip(expected, got, strict=True)):
        if a.shape != b.shape or not _agree(a, b):
            return f"output {index}"
    return None


def _agree(a: Tensor, b: Tensor) -> bool:
    return _relative_difference(a, b) <= _TOLERANCE


def _relative_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) / (float(a.abs().max()) or 1.0)


def _batch_notes(
    graph_module: GraphModule, inputs: tuple[Tensor, ...], outputs: list[Tensor]
) -> tuple[str, ...]:
    """A note if the outputs of the first images change when the batch's last image is left out."""
    fewer = tensor_leaves(_run(graph_module, tuple(i[:-1] for i in inputs)))
    change = max(_relative_difference(a[:-1], b) for a, b in zip(outputs, fewer, strict=True))
    if change <= _TOLERANCE:
        return ()
    return (
        f"the images of a batch see each other: an image's outputs change by {change:.1%} of the largest "
        "with the rest of its batch, so figures per image depend on which images share a batch",
    )


def _check_outputs(outputs: list[Tensor], smaller: Any, batch: int) -> None:
    """Require floating-point outputs (batch, ...) with the same other sizes as for the ``smaller`` batch."""
    kinds = [f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in outputs]
    carry = outputs and all(t.is_floating_point() and t.dim() and len(t) == batch for t in outputs)
    if not carry or [t.shape[1:] for t in outputs] != [t.shape[1:] for t in tensor_leaves(smaller)]:
        raise CaptureError(
            f"the model returns {', '.join(kinds) or 'no tensor'} for a batch of {batch}; accepted are "
            "floating-point tensors of shape (images, ...), whose other sizes do not change with the batch, "
            "such as class scores before argmax: return those"
        )
