"""Cost models of a network on a target as a function of its widths: the start of a budget search.

The models only have to rank plans and be roughly right: every candidate is exported and measured or
predicted as a whole, and the search corrects itself with the result.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from torch.fx import Node

from edgeprune.artifacts.coupling import CouplingGraph, WeightedLayer
from edgeprune.artifacts.model import CapturedModel
from edgeprune.attributes import get_attribute
from edgeprune.fx import RECURRENT, op_name
from edgeprune.profiling.costs import layer_rates
from edgeprune.profiling.kinds import OpKind
from edgeprune.profiling.layers import LayerGeometry, write_layer, write_overhead
from edgeprune.profiling.measurer import Measurer
from edgeprune.recovery.structure import geometry
from edgeprune.selection import CostModel, LayerCost, Product, RooflineCost, TableCost, Widths
from edgeprune.storage.files import scratch_folder
from edgeprune.system import progress
from edgeprune.targets import TargetProfile

_log = logging.getLogger("edgeprune.commands")

_ITEM_BYTES = 4
_SHARES = (0.25, 0.5, 1.0)
"""Widths at which a layer is measured, relative to its own."""

Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class _Site:
    """Sizes of a layer: input and output positions, weight elements per pair of channels."""

    layer: WeightedLayer
    geometry: LayerGeometry | None
    inputs: int
    outputs: int
    area: float

    @property
    def widths(self) -> tuple[int, int]:
        """Output channels, and input channels that each of them reads."""
        return int(self.layer.out_players.size), int(self.layer.in_players.size)


def size_model(captured: CapturedModel, coupling: CouplingGraph, total_bytes: int) -> CostModel:
    """Bytes of an fp32 file: weights and biases of the layers; the rest of ``total_bytes`` is fixed."""
    layers = [
        Product(per_weight=_ITEM_BYTES * s.area, per_output=_ITEM_BYTES) for s in _sites(captured, coupling)
    ]
    return _with_rest("size", coupling, layers, total_bytes)


def roofline_model(
    captured: CapturedModel, coupling: CouplingGraph, target: TargetProfile, total_ms: float
) -> CostModel:
    """Milliseconds by the target's rates; nodes without weights are the fixed rest of ``total_ms``."""
    layers = []
    for site in _sites(captured, coupling):
        depthwise = site.geometry is not None and site.geometry.depthwise
        kind = OpKind.GEMM
        if site.geometry is not None and site.geometry.kernel:
            kind = OpKind.DEPTHWISE if depthwise else OpKind.CONV
        rates = layer_rates(target, kind, threads=target.default_threads)
        through = _ITEM_BYTES * site.inputs
        layers.append(
            RooflineCost(
                macs_per_weight=site.layer.macs_per_weight,
                weight_bytes=_ITEM_BYTES * site.area,
                input_bytes=0.0 if depthwise else through,
                output_bytes=_ITEM_BYTES * site.outputs + (through if depthwise else 0.0),
                macs_per_ms=rates.macs_per_ms,
                bytes_per_ms=rates.bytes_per_ms,
                overhead_ms=rates.overhead_ms,
            )
        )
    return _with_rest("latency", coupling, layers, total_ms)


LayerTables = dict[str, tuple[tuple[float, ...], ...]]
"""Measured milliseconds of every kind of layer: rows by output width, columns by input width."""


def measure_tables(
    captured: CapturedModel, coupling: CouplingGraph, measurer: Measurer, *, step: int
) -> LayerTables:
    """CPU milliseconds of each kind of layer where ``measurer`` is, at up to nine pairs of widths.

    Kinds that cannot be measured alone are left out.

    Raises:
        DeviceError: nothing can be measured on the device.
    """
    kinds = {_kind(s): s for s in _sites(captured, coupling) if s.geometry is not None}
    tables: LayerTables = {}
    with (
        scratch_folder() as scratch,
        progress.task("measuring layers at other widths", len(kinds)) as advance,
    ):
        (call_ms,) = measurer.least_cpu_ms([write_overhead(scratch / "nothing.onnx")])
        for place, (kind, site) in enumerate(sorted(kinds.items())):
            outs, ins = _grids(site, step)
            shape = site.geometry
            assert shape is not None
            files = [
                write_layer(shape, out, into, scratch / f"layer-{place}-{out}-{into}.onnx")
                for out in outs
                for into in ins
            ]
            times = [
                None if ms is None else max(0.0, ms - (call_ms or 0.0)) for ms in measurer.least_cpu_ms(files)
            ]
            known = [ms for ms in times if ms is not None]
            if len(known) == len(times):
                tables[kind] = tuple(tuple(known[i : i + len(ins)]) for i in range(0, len(known), len(ins)))
            else:
                _log.info("%s is not measured alone: onnxruntime does not take it", site.layer.name)
            advance(1)
    return tables


def measured_model(
    captured: CapturedModel,
    coupling: CouplingGraph,
    tables: LayerTables,
    *,
    step: int,
    total_ms: float,
    note: Note,
) -> CostModel:
    """CPU milliseconds from measured ``tables``; ``total_ms`` is the time of the whole network.

    Layers that take longer separately than together are scaled to the total. A layer of an unmeasured kind
    costs its share of the multiply-accumulates.
    """
    layers: list[LayerCost] = []
    by_macs = total_ms / max(1, coupling.total_macs())
    unmeasured = []
    for site in _sites(captured, coupling):
        costs = tables.get(_kind(site))
        if costs is None:
            unmeasured.append(site.layer.name)
            layers.append(Product(per_weight=site.layer.macs_per_weight * by_macs))
        else:
            outs, ins = _grids(site, step)
            layers.append(TableCost(out_widths=outs, in_widths=ins, costs=costs, step=step))
    if unmeasured:
        note(
            f"{len(unmeasured)} layers of kinds that are not measured alone ({unmeasured[0]}, ...) are taken "
            "to cost what their multiply-accumulates do while plans are compared"
        )
    alone = Widths(coupling, [CostModel(name="latency", layers=tuple(layers))]).totals()[0]
    if alone > total_ms > 0.0:
        layers = [_scaled(layer, total_ms / alone) for layer in layers]
    return _with_rest("latency", coupling, layers, total_ms)


def _scaled(layer: LayerCost, factor: float) -> LayerCost:
    if isinstance(layer, TableCost):
        return replace(layer, costs=tuple(tuple(factor * c for c in row) for row in layer.costs))
    assert isinstance(layer, Product)
    return Product(per_weight=factor * layer.per_weight, per_output=factor * layer.per_output)


def _kind(site: _Site) -> str:
    return f"{site.geometry} {site.widths}"


def _grids(site: _Site, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    out, into = site.widths
    depthwise = site.geometry is not None and site.geometry.depthwise
    return _grid(out, step), (1,) if depthwise else _grid(into, step)


def _grid(width: int, step: int) -> tuple[int, ...]:
    """Widths to measure: shares of the layer's width, rounded up to the step, and the width itself."""
    widths = {min(width, math.ceil(share * width / step) * step) for share in _SHARES}
    return tuple(sorted(widths))


def _with_rest(name: str, coupling: CouplingGraph, layers: Sequence[LayerCost], total: float) -> CostModel:
    """Cost model of the layers, with the rest of ``total`` as fixed cost."""
    alone = CostModel(name=name, layers=tuple(layers))
    return replace(alone, fixed=max(0.0, total - Widths(coupling, [alone]).totals()[0]))


def _sites(captured: CapturedModel, coupling: CouplingGraph) -> list[_Site]:
    nodes = {n.name: n for n in captured.graph_module.graph.nodes}
    return [_site(captured, nodes[x.node], x) for x in coupling.layers]


def _site(captured: CapturedModel, node: Node, layer: WeightedLayer) -> _Site:
    weight = get_attribute(captured.graph_module, layer.weight)
    assert isinstance(weight, Tensor)
    out, into = int(layer.out_players.size), int(layer.in_players.size)
    area = weight.numel() / max(1, out * into)
    form, positions = None, (layer.macs_per_weight, layer.macs_per_weight)  # steps of a recurrent op
    if layer.op not in RECURRENT:
        given, result = _shape(node.args[0]), _shape(node)
        place = 1 if op_name(node).startswith("conv") else -1
        positions = (
            math.prod(given[1:]) // max(1, given[place]), math.prod(result[1:]) // max(1, result[place])
        )  # fmt: skip
        form = _geometry(node, given, weight)
    return _Site(layer=layer, geometry=form, inputs=positions[0], outputs=positions[1], area=area)


def _shape(node: object) -> tuple[int, ...]:
    value = node.meta.get("val") if isinstance(node, Node) else None
    assert isinstance(value, Tensor)
    # The batch size may be symbolic; costs are per image.
    return (1, *(int(d) for d in value.shape[1:]))


def _geometry(node: Node, given: tuple[int, ...], weight: Tensor) -> LayerGeometry | None:
    layer_geometry = geometry(node, weight)
    if layer_geometry is None:
        return None
    if layer_geometry.is_linear:
        return LayerGeometry(size=(math.prod(given[1:-1]),))
    depthwise = layer_geometry.groups > 1 and weight.shape[1] == 1
    return LayerGeometry(
        size=given[2:],
        kernel=layer_geometry.kernel,
        stride=layer_geometry.stride,
        padding=layer_geometry.padding,
        dilation=layer_geometry.dilation,
        groups=1 if depthwise else layer_geometry.groups,
        depthwise=depthwise,
    )
