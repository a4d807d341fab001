"""Programs of torch.export with a dynamic batch, also of models whose code fixes it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

from edgeprune.artifacts.model import shape_words
from edgeprune.capture.batch import PerImage, from_single_images, from_two_batches
from edgeprune.errors import CaptureError
from edgeprune.fx import tensor_leaves
from edgeprune.plain_names import NameFaultError, make_names_plain
from edgeprune.system.garbage import collection_paused
from edgeprune.system.imports import ended_in_the_open, first_line
from edgeprune.system.lookups import operators_listed_once
from edgeprune.system.quiet import quiet_logging, quiet_streams

_REASON_LENGTH = 300
_FIXED_BATCH = re.compile(r"^\s*batch = (\d+)\s*$", re.MULTILINE)
"""How torch.export proposes to fix the batch, below its reasons."""


def export_program(
    module: nn.Module, example: Tensor | tuple[Tensor, ...], *, dynamic_batch: bool = True
) -> Any:
    """Run ``torch.export`` and functionalise the result, keeping convolution, linear and the like whole.

    ``example`` is one tensor (batch, ...) or one for each input. Names of tensors become plain.

    Raises:
        CaptureError: with the reason of ``torch.export`` in one line.
    """
    return _exported(module, _as_tuple(example), dynamic_batch=dynamic_batch)[0]


def program_of_graph(
    graph_module: GraphModule, example: Tensor | tuple[Tensor, ...], *, dynamic_batch: bool = True
) -> Any:
    """The program of a captured graph, or of what pruning made of one: functional, so traced only once.

    Functionalising it again took a quarter of the CPU time of writing a small network as ONNX, and left the
    file as it was.

    Raises:
        CaptureError: with the reason of ``torch.export`` in one line.
    """
    return _exported(graph_module, _as_tuple(example), dynamic_batch=dynamic_batch, functional=True)[0]


def _as_tuple(example: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (example,) if isinstance(example, Tensor) else example


def _exported(
    module: nn.Module, examples: tuple[Tensor, ...], *, dynamic_batch: bool, functional: bool = False
) -> tuple[Any, dict[str, str]]:
    """The program, and a map from plain to own names of the renamed tensors."""
    try:
        with _quietly():
            dynamic = _dynamic_batch(examples) if dynamic_batch else None
            program = torch.export.export(module, examples, dynamic_shapes=dynamic)
            changed = make_names_plain(program)  # before torch generates code from them
            if functional:
                return program, changed
            with operators_listed_once():  # the model's code, which may define some, has run
                return program.run_decompositions({}), changed
    except NameFaultError as fault:
        raise CaptureError(f"names of the model's tensors or modules cannot be written: {fault}") from fault
    except Exception as error:
        raise _not_captured(examples, error) from error


def _not_captured(examples: tuple[Tensor, ...], error: Exception) -> CaptureError:
    takes = "tensors of those shapes" if len(examples) > 1 else "one image tensor of that shape"
    return CaptureError(
        f"torch.export could not capture the model for inputs of {shapes_of(examples)} with a dynamic "
        f"batch ({_export_reason(error)}{_place(error)}); accepted are models that run on {takes} "
        "without data-dependent control flow and without a batch size fixed in their code: change that "
        "part of the model"
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """What tracing a user's code needs: no output of torch, no gradients, SystemExit as an error."""
    with (
        quiet_logging(),
        quiet_streams(stderr=True),
        collection_paused(),
        torch.no_grad(),
        ended_in_the_open(),
    ):
        yield


def with_dynamic_batch(
    module: nn.Module, outputs: Any, examples: tuple[Tensor, ...]
) -> tuple[Any, dict[str, str], tuple[str, ...]]:
    """The program, changed names, and a note where the model's own code fixes the batch."""
    if isinstance(module, PerImage):
        return *_exported(_from_single_images(module.module, examples), examples, dynamic_batch=True), (
            "the model's code takes single images alone: captured so, and its reshapes take any batch",
        )
    flat = _with_flat_outputs(module, outputs)
    try:
        return *_exported(flat, examples, dynamic_batch=True), ()
    except CaptureError as error:
        graph = _from_two_batches(flat, examples) if "fixes the batch" in str(error) else None
        if graph is None:
            raise
    return *_exported(graph, examples, dynamic_batch=True), (
        "the model's code fixes the batch: captured at two batches, and sizes that follow it take any batch",
    )


def _from_two_batches(module: nn.Module, examples: tuple[Tensor, ...]) -> GraphModule | None:
    try:
        with _quietly():
            return from_two_batches(module, examples)
    except Exception:  # the reason that is told is that of the dynamic batch
        return None


def _from_single_images(module: nn.Module, examples: tuple[Tensor, ...]) -> GraphModule:
    single = tuple(example[:1] for example in examples)
    try:
        with _quietly():
            return from_single_images(_with_flat_outputs(module, module(*single)), examples)
    except Exception as error:
        raise _not_captured(single, error) from error


def _dynamic_batch(examples: tuple[Tensor, ...]) -> Any:
    """One dynamic batch for all inputs, set by tensor since parameters of forward may be ``*args``."""
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor in examples:
        shapes[tensor] = {0: torch.export.Dim("batch")}
    return shapes


def _export_reason(error: Exception) -> str:
    """First line of the reason; for a violated constraint of torch.export, the constraint."""
    reason = first_line(error, _REASON_LENGTH)
    if reason.startswith("Constraints violated"):
        fixed = _FIXED_BATCH.search(str(error))
        return f"as traced, its code fixes the batch at {fixed[1]}" if fixed else reason.partition("!")[0]
    return reason


def shapes_of(examples: tuple[Tensor, ...]) -> str:
    """Shapes of the inputs without the batch, in words."""
    return shape_words(tuple(tuple(e.shape[1:]) for e in examples))


def _place(error: Exception) -> str:
    """The innermost line of the user's own code in a traceback."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), sys.prefix, "<")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    return f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _with_flat_outputs(module: nn.Module, outputs: Any) -> nn.Module:
    """The module, or a copy that returns the tensors of a dataclass, which torch.export rejects."""
    if all(not dataclasses.is_dataclass(leaf) for leaf in tree_leaves(outputs)):
        return module
    flat = copy.copy(module)

    @functools.wraps(module.forward)
    def forward(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return tuple(tensor_leaves(module.forward(*args, **kwargs)))

    flat.forward = forward
    return flat
