"""Export a captured program to simplified ONNX and the pruned network to files that need no pickle."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxsim
import safetensors.torch
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgeprune.errors import CaptureError
from edgeprune.fx import op_name
from edgeprune.plain_names import plain_module_name
from edgeprune.storage.files import atomic_write_bytes, atomic_write_text
from edgeprune.system.garbage import collection_paused
from edgeprune.system.lookups import onnx_forms_kept, operators_listed_once
from edgeprune.system.quiet import quiet_compiled_code, quiet_loggers, quiet_streams

_log = logging.getLogger("edgeprune.exporting")
INPUT_NAME = "input"
BATCH_SYMBOL = "batch"


def export_onnx(program: ExportedProgram, path: Path, inputs: tuple[str, ...] = ()) -> None:
    """Write the program as ONNX (dynamo exporter with its optimizer: batch norm folded where possible).

    The only input is named ``input``, several by ``inputs``; outputs are named ``output``, ``output_0`` ...
    where there are several.

    Raises:
        CaptureError: an op of the program has no ONNX form.
    """
    outputs = len(program.graph_signature.user_outputs)
    _guard_padded_pooling(program.graph_module)
    names = ["output"] if outputs == 1 else [f"output_{i}" for i in range(outputs)]
    names = [name if name not in inputs else f"{name}_of_the_model" for name in names]
    try:
        with _no_chatter(), collection_paused(), operators_listed_once(), onnx_forms_kept():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                optimize=True,
                verbose=False,
                input_names=list(inputs) or [INPUT_NAME],
                output_names=names,
            )
            assert exported is not None
            model = exported.model_proto
    except Exception as error:
        raise CaptureError(
            f"the network could not be written as ONNX ({_innermost(error)}); accepted are networks whose "
            "ops have an ONNX form: replace the op that it names"
        ) from error
    _strip_metadata(model)
    onnx.save_model(model, str(path))


_ORIGINS = ("from_node", "stack_trace")
"""Node metadata keys that hold the origin of a node."""
_MODULES = "nn_module_stack"
"""Node metadata key of the module stack, innermost last."""
_UNFUSED = 1e-30
"""Replaces a zero padding value before max pooling."""


def _guard_padded_pooling(graph_module: GraphModule) -> None:
    """Replace zero padding before max pooling by a tiny nonzero value.

    onnxruntime (1.31) fuses zero padding into the pooling that follows, whose own padding counts as minus
    infinity: the result is wrong if all values of a window are negative. It does not fuse other values.
    """
    for node in graph_module.graph.nodes:
        if op_name(node) not in ("pad", "constant_pad_nd") or not node.users:
            continue
        value = node.args[-1] if len(node.args) > 2 else node.kwargs.get("value", 0)
        pooled = all(op_name(user).startswith("max_pool") for user in node.users)
        if pooled and value in (0, None, "constant"):
            constant = (node.args[0], node.args[1])
            node.args = (*constant, "constant", _UNFUSED) if op_name(node) == "pad" else (*constant, _UNFUSED)
            node.kwargs = {}
    graph_module.recompile()


def _innermost(error: BaseException) -> str:
    """First line of the root cause, which names the op; the exporter wraps it in its own instructions."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next((x.strip() for x in str(error).splitlines() if x.strip()), type(error).__name__)
    return line[:300]


def simplify_onnx(source: Path, destination: Path) -> str | None:
    """Simplify with onnxsim; return a note if the model is saved unsimplified."""
    model = onnx.load_model(str(source))
    try:
        with _no_chatter(), quiet_compiled_code(_log):
            simplified, equal = onnxsim.simplify(model)
        reason = None if equal else "its own check found a difference"
    except Exception as error:
        simplified, reason = model, str(error).splitlines()[0] if str(error) else type(error).__name__
    if reason is not None:
        note = f"onnxsim could not simplify the model ({reason}); model.onnx is the exporter's own output"
        _log.warning(note)
        onnx.save_model(model, str(destination))
        return note
    _strip_metadata(simplified)
    onnx.save_model(simplified, str(destination))
    return None


def _strip_metadata(model: onnx.ModelProto) -> None:
    """Drop source paths and stack traces, which are private and differ between runs."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del item.metadata_props[:]
    for initializer in model.graph.initializer:
        del initializer.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    _name_batch(model)


def _name_batch(model: onnx.ModelProto) -> None:
    """Name dimensions that equal the batch size consistently; drop the names of other dynamic dimensions.

    A dimension such as heads times batch must not share the batch's name: onnxruntime assumes dimensions of
    the same name to be equal and lets such tensors share memory.
    """
    symbols = {
        d.dim_param for item in model.graph.input for d in item.type.tensor_type.shape.dim if d.dim_param
    }
    for item in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in item.type.tensor_type.shape.dim:
            if dimension.dim_param in symbols:
                dimension.dim_param = BATCH_SYMBOL
            elif dimension.dim_param:
                dimension.ClearField("dim_param")


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write the program as ``.pt2``; origins of nodes are dropped, so the same program gives the same bytes.

    Its names are plain (:mod:`edgeprune.plain_names`), as its reader and torch itself require.

    It is serialized in memory: torch's own writer terminates the process if the disk is full.

    Raises:
        OutputError: the file cannot be written.
    """
    _forget_origins(program.graph_module)
    stream = io.BytesIO()
    with _no_chatter():
        torch.export.save(program, stream)
    atomic_write_bytes(path, stream.getvalue())


def _forget_origins(graph_module: GraphModule) -> None:
    """Drop source paths, which are private, and memory addresses, which differ between runs."""
    for module in graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            for told in _ORIGINS:
                node.meta.pop(told, None)
            if node.meta.get(_MODULES):
                node.meta[_MODULES] = {
                    plain_module_name(key): (plain_module_name(path), kind)
                    for key, (path, kind) in node.meta[_MODULES].items()
                }


def save_surgery(recipe: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> None:
    """Write ``surgery.json`` and ``weights.safetensors`` (same keys as the user's own state_dict)."""
    tensors = {k: v.detach().contiguous().clone() for k, v in sorted(state.items())}
    atomic_write_bytes(folder / "weights.safetensors", safetensors.torch.save(tensors))
    atomic_write_text(folder / "surgery.json", json.dumps(recipe, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def _no_chatter() -> Iterator[None]:
    """Suppress the exporters' terminal output; errors are raised."""
    with quiet_loggers("torch.onnx", least=logging.ERROR), quiet_streams(stdout=True):
        yield
