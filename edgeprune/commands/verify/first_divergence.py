"""Models that return their inner tensors, and the deviations of these between two models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune import parity
from edgeprune.artifacts.arrays import Float32Array
from edgeprune.artifacts.report import TensorDeviation
from edgeprune.errors import ProfileError
from edgeprune.fx import NodeValues
from edgeprune.onnx_io.intermediate_outputs import tapped_session
from edgeprune.onnx_io.read import read_onnx
from edgeprune.onnx_io.session import fixed_batch, in_a_sentence, run_filled
from edgeprune.quantization.equalization import equalized_tensors
from edgeprune.system import progress

AT_ONCE = 8
_DEQUANTIZED = "_DequantizeLinear_Output"


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A model that returns its inner tensors (batch, ...) by name; ``names`` in execution order.

    Channels of ``equalized`` tensors were scaled on purpose; the nodes that read them undo it.
    """

    names: tuple[str, ...]
    outputs: Callable[[Tensor], parity.Outputs]
    inside: Callable[[Tensor, tuple[str, ...]], dict[str, Float32Array]]
    equalized: frozenset[str] = frozenset()


def inner_deviations(first: Traced, second: Traced, images: Tensor) -> Iterator[TensorDeviation]:
    """Relative error and cosine of every common tensor, over all images, in the second's order."""
    common = tuple(name for name in second.names if name in set(first.names))
    if not common:
        return
    by_channel = first.equalized | second.equalized
    sums: dict[str, NDArray[np.float64]] = {}
    differing: set[str] = set()
    with progress.task("comparing inner tensors", len(images)) as advance:
        for batch in torch.split(images, AT_ONCE):
            ours, theirs = first.inside(batch, common), second.inside(batch, common)
            for name in common:
                if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
                    differing.add(name)
                    continue
                products = _products(ours[name], theirs[name], by_channel=name in by_channel)
                sums[name] = sums[name] + products if name in sums else products
            advance(len(batch))
    for name in common:
        if name not in differing:
            yield _deviation(name, sums[name], up_to_scales=name in by_channel)


def _products(a: Float32Array, b: Float32Array, *, by_channel: bool) -> NDArray[np.float64]:
    """Sums (3, channels or 1) of a a, b b and a b."""
    by_channel = by_channel and a.ndim > 1 and a.size > 0
    rows = a.shape[1] if by_channel else 1
    x, y = ((np.moveaxis(t, 1, 0) if by_channel else t).reshape(rows, -1).astype(np.float64) for t in (a, b))
    with np.errstate(over="ignore", invalid="ignore"):  # values may be non-finite
        return np.stack([np.square(x).sum(1), np.square(y).sum(1), (x * y).sum(1)])


def _deviation(name: str, sums: NDArray[np.float64], *, up_to_scales: bool) -> TensorDeviation:
    with np.errstate(over="ignore", invalid="ignore"):
        return _deviation_of(name, *sums, up_to_scales=up_to_scales)


def _deviation_of(
    name: str,
    own: NDArray[np.float64],
    other: NDArray[np.float64],
    product: NDArray[np.float64],
    *,
    up_to_scales: bool,
) -> TensorDeviation:
    if up_to_scales:
        factors = np.divide(product, other, out=np.ones_like(other), where=other > 0)
        other, product = other * factors**2, product * factors
    error = max(0.0, float((own + other - 2 * product).sum()))
    whole, length = float(own.sum()), float(np.sqrt(own.sum() * other.sum()))
    return TensorDeviation(
        name=name,
        error=float(np.sqrt(error / whole)) if whole > 0 else float(error > 0),
        cosine=float(product.sum()) / length if length > 0 else 1.0,
        up_to_scales=up_to_scales,
    )


def traced_onnx(path: Path, threads: int, *, timeout_s: float | None = None) -> Traced:
    """Trace an ONNX file; one run of it takes at most ``timeout_s`` seconds.

    Raises:
        ProfileError: the file is missing or unreadable; later, it cannot be run, or not in time.
    """
    proto = read_onnx(path, ProfileError)
    made = {output for node in proto.graph.node for output in node.output}
    rounded = {name.removesuffix(_DEQUANTIZED): name for name in made if name.endswith(_DEQUANTIZED)}
    # An 8-bit tensor is compared after dequantization, under its name in the 32-bit model.
    order = [o for node in proto.graph.node for o in node.output if o in made and "QuantizeLinear" not in o]
    outside = {value.name for value in (*proto.graph.initializer, *proto.graph.output)}
    names = tuple(dict.fromkeys(name for name in order if name and name not in outside))

    sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}

    def failed(reason: str) -> str:
        return (
            f"onnxruntime cannot give the inner tensors of {path.name} ({reason}); accepted is an ONNX file "
            "for its CPU provider"
        )

    def inside(batch: Tensor, wanted: tuple[str, ...]) -> dict[str, Float32Array]:
        with in_a_sentence(ProfileError, failed, name=path.name):
            if wanted not in sessions:
                taps = tuple(rounded.get(name, name) for name in wanted)
                sessions[wanted] = tapped_session(proto, taps, threads, timeout_s)
            session = sessions[wanted]
            asked = [rounded.get(name, name) for name in wanted]
            parts = [
                run_filled(session, asked, chunk.numpy(), timeout_s)
                for chunk in torch.split(batch, fixed_batch(session) or len(batch))
            ]
        values = [_joined(part) for part in zip(*parts, strict=True)]
        return {name: value for name, value in zip(wanted, values, strict=True) if value is not None}

    return Traced(
        names=names,
        outputs=lambda images: parity.run_onnx(path, images, threads=threads, timeout_s=timeout_s),
        inside=inside,
        equalized=equalized_tensors(proto),
    )


def _joined(parts: tuple[object, ...]) -> Float32Array | None:
    """The values of a tensor over batches; ``None`` where they cannot be compared.

    Such are sequences, maps and texts, and tensors of other sizes in each batch.
    """
    tensors = [
        np.asarray(part) for part in parts if isinstance(part, np.ndarray) and part.dtype.kind in "fiub"
    ]
    if len(tensors) < len(parts) or (len(parts) > 1 and len({t.shape[1:] or None for t in tensors}) > 1):
        return None
    return tensors[0] if len(parts) == 1 else np.concatenate([np.atleast_1d(tensor) for tensor in tensors])


def traced_torch(module: GraphModule) -> Traced:
    """Trace a captured graph."""
    names = tuple(n.name for n in module.graph.nodes if n.op == "call_function" and _is_tensor(n))

    def inside(batch: Tensor, wanted: tuple[str, ...]) -> dict[str, Float32Array]:
        kept = NodeValues(module, wanted)
        with torch.no_grad():
            kept.run(batch)
        return {name: value.detach().numpy() for name, value in kept.values.items()}

    return Traced(names=names, outputs=lambda images: parity.run_torch(module, images), inside=inside)


def _is_tensor(node: Node) -> bool:
    """Whether a node returns a single tensor, as far as its metadata tells."""
    return isinstance(node.meta.get("val", torch.empty(0)), Tensor)


def first_apart(tensors: Iterable[TensorDeviation], tolerance: float) -> TensorDeviation | None:
    """The first inner tensor, in execution order, that differs by more than ``tolerance``."""
    return next((tensor for tensor in tensors if tensor.error > tolerance), None)
