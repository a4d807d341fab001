"""Capture a module as a functional ATen graph whose batch dimension is dynamic."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.fx.graph import CodeGen

from edgeprune.artifacts.model import CapturedModel
from edgeprune.errors import CaptureError
from edgeprune.fx import tensor_leaves
from edgeprune.graph.attributes import get_attribute, has_attribute, set_attribute
from edgeprune.graph.folding import fold_computed_weights
from edgeprune.imports import first_line

_log = logging.getLogger("edgeprune.graph.capture")
_CHECK_BATCH = 3
_REASON_LENGTH = 300


def capture(module: nn.Module, input_shape: tuple[int, ...]) -> CapturedModel:
    """Capture ``module`` for inputs (batch, *input_shape) of float32 with ``torch.export``.

    The graph is functional (no in-place op), keeps the user's parameter names, returns one tensor or a
    tuple of tensors, and is checked against the module on a batch size that the export did not see.

    Raises:
        CaptureError: the export fails, the batch cannot be dynamic, or the captured graph disagrees.
    """
    generator = torch.Generator().manual_seed(0)
    example = torch.rand((2, *input_shape), generator=generator)
    _check_runs(module, example)
    program = export_program(module, example)
    graph_module = _flatten_signature(program)
    fold_computed_weights(graph_module)
    _check_single_input(graph_module)
    _check_against(module, graph_module, torch.rand((_CHECK_BATCH, *input_shape), generator=generator))
    parameters = sum(p.numel() for p in graph_module.parameters())
    return CapturedModel(graph_module=graph_module, input_shape=input_shape, num_parameters=parameters)


def export_program(module: nn.Module, example: Tensor, *, dynamic_batch: bool = True) -> Any:
    """Run ``torch.export`` and functionalise the result, keeping convolution, linear and the like whole.

    Raises:
        CaptureError: with the reason of ``torch.export`` in one line.
    """
    dynamic = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(module, (example,), dynamic_shapes=dynamic)
            return program.run_decompositions({})
    except Exception as error:
        shape = "x".join(str(s) for s in example.shape[1:])
        raise CaptureError(
            f"torch.export could not capture the model for inputs of {shape} with a dynamic batch "
            f"({first_line(error, _REASON_LENGTH)}{_place(error)}); accepted are models that run on one "
            "image tensor of that shape without data-dependent control flow and without a batch size fixed "
            "in their code: change that part of the model"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.export from printing graphs and tracebacks: the failure is reported in one sentence."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _place(error: Exception) -> str:
    """The innermost line of the user's own code in a traceback, to find it again."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), sys.prefix, "<")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    return f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _check_runs(module: nn.Module, example: Tensor) -> None:
    """Tell a wrong input shape from a model that resists the export."""
    try:
        with torch.no_grad():
            module(example)
    except Exception as error:
        if isinstance(error, TypeError) and "argument" in str(error):
            raise CaptureError(
                f"the model cannot be called with one image tensor ({first_line(error, _REASON_LENGTH)}); "
                "accepted is one input: wrap the model so that the others are constants"
            ) from error
        shape = "x".join(str(s) for s in example.shape[1:])
        first = next((m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)), None)
        fits = first is None or first == example.shape[1]
        reason = (
            first_line(error, _REASON_LENGTH) if fits else f"its first convolution takes {first} channels"
        )
        raise CaptureError(
            f"the model does not run on inputs of the shape {shape}, channels x height x width ({reason}); "
            "give images of the shape that it was trained on, or name that shape with --input-shape"
        ) from error


def _flatten_signature(program: Any) -> GraphModule:
    """A plain GraphModule: positional inputs, bare outputs, no guards and no dead code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = program.module(check_guards=False)
    root = nn.Module()
    graph = Graph()
    output = graph.graph_copy(source.graph, {})
    flat = [v for v in _leaves(output) if v is not None]
    graph.output(flat[0] if len(flat) == 1 else tuple(flat))
    graph.set_codegen(CodeGen())
    for node in list(graph.nodes):
        if node.op == "call_module":
            graph.erase_node(node)
    graph.eliminate_dead_code()
    for name, parameter in source.named_parameters(remove_duplicate=False):
        copied = nn.Parameter(parameter.detach().clone(), requires_grad=False)
        set_attribute(root, name, copied)
    for name, buffer in source.named_buffers(remove_duplicate=False):
        set_attribute(root, name, buffer.detach().clone())
    for node in graph.nodes:
        if node.op == "get_attr" and not has_attribute(root, node.target):
            value = copy.deepcopy(get_attribute(source, node.target))
            set_attribute(root, node.target, value)
    graph_module = GraphModule(root, graph, class_name="CapturedGraph")
    graph_module.train(False)
    return graph_module


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _check_single_input(graph_module: GraphModule) -> None:
    names = [n.name for n in graph_module.graph.nodes if n.op == "placeholder"]
    if len(names) != 1:
        raise CaptureError(
            f"the model takes {len(names)} inputs ({', '.join(names)}); accepted is one image tensor: "
            "wrap the model so that the others are constants."
        )


def _check_against(module: nn.Module, graph_module: GraphModule, images: Tensor) -> None:
    try:
        with torch.no_grad():
            expected = [t for t in tensor_leaves(module(images)) if t is not None]
            got = [t for t in tensor_leaves(graph_module(images)) if t is not None]
    except Exception as error:
        raise CaptureError(
            f"the model runs on a batch of 2 images but not of {images.shape[0]} "
            f"({first_line(error, _REASON_LENGTH)}); "
            "make its forward pass independent of the batch size, or export it with a dynamic batch"
        ) from error
    _check_outputs(expected, images.shape[0])
    for index, (a, b) in enumerate(zip(expected, got, strict=False)):
        scale = float(a.abs().max()) or 1.0
        if a.shape != b.shape or float((a - b).abs().max()) > 1e-4 * scale:
            raise CaptureError(
                f"the captured graph disagrees with the model on output {index} for a batch of "
                f"{images.shape[0]}: the model depends on its batch size or draws random numbers in "
                "evaluation mode; make its forward pass deterministic and independent between images."
            )


def _check_outputs(outputs: list[Tensor], batch: int) -> None:
    kinds = [f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in outputs]
    if not outputs or not all(t.is_floating_point() and t.dim() and len(t) == batch for t in outputs):
        raise CaptureError(
            f"the model returns {', '.join(kinds) or 'no tensor'} for a batch of {batch}; accepted are "
            "floating-point tensors of shape (images, ...), such as class scores before argmax: return those"
        )
