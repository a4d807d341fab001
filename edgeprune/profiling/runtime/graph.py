"""The work of a model on the graph that onnxruntime runs: what its own optimizer makes of the file.

The optimizer works on this machine; what depends on the processor (8-bit kernels that take signed values,
the blocked layout of x86) is set as on the target.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import GraphProto, ModelProto

from edgeprune.errors import ProfileError
from edgeprune.onnx_io.read import read_onnx, require_onnx
from edgeprune.onnx_io.session import open_session
from edgeprune.profiling.kinds import OpWork, Tensors, free_work, is_view, node_work, of_one_input
from edgeprune.profiling.runtime.shapes import with_shapes
from edgeprune.profiling.work import count_work, fix_batch, known_tensors
from edgeprune.storage.files import scratch_folder
from edgeprune.system.host import read_host
from edgeprune.system.imports import first_line
from edgeprune.targets import TargetProfile, is_arm

_LOG = logging.getLogger("edgeprune.profiling")
_KEPT_MODELS = 256
_MOST_BYTES = 2**31 - 2**20


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What of onnxruntime's optimizer depends on the processor.

    ``signed``: 8-bit kernels take signed values as they are; ``blocked``: convolutions run on blocks of
    channels.
    """

    signed: bool
    blocked: bool


@dataclass(frozen=True, kw_only=True)
class RuntimeWork:
    """Work of every node that runs, in order, at batch 1.

    ``activation_bytes`` is the most that calculated values and inputs take at once, by when each is read
    last; 0 where it is not known. ``note`` says if the file itself was counted instead, and why.
    """

    operations: tuple[OpWork, ...]
    weight_bytes: int
    activation_bytes: int
    note: str = ""


def kernels_of(target: TargetProfile) -> Kernels:
    """Of a target's processor."""
    if is_arm(target.isa):
        return Kernels(signed=True, blocked=False)
    host = read_host()
    return Kernels(signed=False, blocked=not is_arm(host.isa) and host.width_quantum == target.width_quantum)


def runtime_work(onnx_path: str | Path, kernels: Kernels) -> RuntimeWork:
    """Work of a file on the graph that onnxruntime runs with such kernels.

    Raises:
        ProfileError: the file is missing or no ONNX, or its work cannot be counted.
    """
    path = Path(onnx_path)
    require_onnx(path, ProfileError)
    state = path.stat()
    return _counted(path.resolve(), state.st_mtime_ns, state.st_size, kernels)


@functools.lru_cache(maxsize=_KEPT_MODELS)
def _counted(path: Path, _changed_ns: int, _size_bytes: int, kernels: Kernels) -> RuntimeWork:
    try:
        model = read_onnx(path, ProfileError, external_data=True)
        batch = fix_batch(model, path.name)
        found = _work_of(optimized(model, kernels), _shapes_before(model) if kernels.blocked else {})
        return replace(found, operations=tuple(of_one_input(op, batch) for op in found.operations))
    except ProfileError as error:
        reason = str(error)
    except Exception as error:  # onnxruntime's and onnx' own exceptions share no base but Exception
        reason = first_line(error)
    work = count_work(path)
    note = f"counted on the file, not on what onnxruntime makes of it ({reason})"
    _LOG.warning("%s: %s", path.name, note)
    return RuntimeWork(
        operations=work, weight_bytes=sum(op.weight_bytes for op in work), activation_bytes=0, note=note
    )


def optimized(model: ModelProto, kernels: Kernels) -> ModelProto:
    """What onnxruntime's optimizer makes of a model.

    Raises:
        ProfileError: the model is too large to be optimized here.
    """
    if model.ByteSize() > _MOST_BYTES:
        raise ProfileError("it is larger than 2 GiB")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdqisint8allowed", "1" if kernels.signed else "0")
    # Weights rearranged for this machine's kernels would not be those of the target.
    options.add_session_config_entry("session.disable_prepacking", "1")
    with scratch_folder("optimized-") as scratch:
        written = scratch / "optimized.onnx"
        options.optimized_model_filepath = str(written)
        open_session(
            model.SerializeToString(), options, without=() if kernels.blocked else ("NchwcTransformer",)
        )
        return onnx.load(str(written))


def _shapes_before(model: ModelProto) -> Mapping[str, Sequence[int]]:
    """Shapes in the graph as it was given, as far as they can be inferred."""
    return known_tensors(onnx.shape_inference.infer_shapes(model, data_prop=True).graph).shapes


def _work_of(model: ModelProto, before: Mapping[str, Sequence[int]]) -> RuntimeWork:
    graph = with_shapes(model, before, read_host().width_quantum)
    tensors = known_tensors(graph)
    stored = frozenset(tensor.name for tensor in graph.initializer)
    tensors = Tensors(shapes=tensors.shapes, item_bytes=tensors.item_bytes, constants=stored)
    unknown = [o for node in graph.node for o in node.output if o and o not in tensors.shapes]
    if unknown:
        raise ProfileError(f"the shape of {unknown[0]!r} in the optimized graph is unknown")
    return RuntimeWork(
        operations=tuple(
            free_work(node) if is_view(node) else node_work(node, tensors) for node in graph.node
        ),
        weight_bytes=tensors.bytes_of(sorted(stored)),
        activation_bytes=_activation_bytes(graph, tensors),
    )


def _activation_bytes(graph: GraphProto, tensors: Tensors) -> int:
    """The most bytes of values that are needed at once; a view shares the memory of what it shows."""
    owner: dict[str, str] = {}
    last_read: dict[str, int] = {}
    for place, node in enumerate(graph.node):
        for name in node.input:
            last_read[owner.get(name, name)] = place
        if is_view(node) and node.input:
            owner |= {name: owner.get(node.input[0], node.input[0]) for name in node.output}
    for output in graph.output:
        last_read[owner.get(output.name, output.name)] = len(graph.node)
    live = {
        value.name: tensors.bytes_of([value.name])
        for value in graph.input
        if value.name not in tensors.constants
    }
    most = sum(live.values())
    for place, node in enumerate(graph.node):
        live |= {name: tensors.bytes_of([name]) for name in node.output if name and name not in owner}
        most = max(most, sum(live.values()))
        live = {name: size for name, size in live.items() if last_read.get(name, -1) > place}
    return most
