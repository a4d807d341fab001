"""Closed-form recovery: each layer in order learns to say what the original said, from what is left.

For every layer whose input changed, in graph order and on the pruned network's own activations:

1. channel merge: the weights absorb the linear map from kept to all input channels;
2. patch-level least squares on the whole kernel and a bias, ridge towards 1;
3. where an activation cuts off what follows (ReLU), it is solved again for what is left behind it
   (``clipping``);
4. the target of a layer that feeds a residual add is the original sum minus what the pruned shortcut
   delivers, so that errors gathered in the stream are repaired where they can be.
"""

from __future__ import annotations

import copy
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.artifacts.coupling import CouplingGraph, WeightedLayer, kept_positions
from edgeprune.artifacts.pruning import RecoveryReport, RecoveryStep
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.attributes import get_attribute
from edgeprune.fx import op_name
from edgeprune.recovery.clipping import Clip, Fit, Rows, following_clip, refit
from edgeprune.recovery.evaluation import LazyGraph
from edgeprune.recovery.least_squares import NormalEquations, channel_map
from edgeprune.recovery.structure import (
    Geometry,
    LayerSite,
    channels_last,
    depends_on,
    find_site,
    geometry,
    has_computed_bias,
    rows_of,
    targets_of,
)
from edgeprune.rounding import round_layers, round_weight

_log = logging.getLogger("edgeprune.recovery")
_SMALLEST_SCALE = 1e-6
_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class RecoveryOptions:
    """``ridge`` is relative to the mean diagonal of the Gram matrix.

    A layer has ``rows_per_unknown`` rows, ``min_rows`` at least, which depthwise kernels need not reach.
    ``clip_rounds`` more solutions follow where an activation cuts off; 0 leaves the plain one. Rows of a
    layer are kept between passes over them up to ``rows_limit_bytes``.
    """

    ridge: float = 1e-2
    merge_ridge: float = 1e-3
    rows_per_unknown: int = 60
    min_rows: int = 20_000
    most_rows_per_unknown: int = 400
    images_at_once: int = 100
    memory_limit_bytes: int = 3 * 2**30
    rows_limit_bytes: int = 2**28
    residual_repair: bool = True
    clip_rounds: int = 3


def reconstruct(
    original: GraphModule,
    pruned: GraphModule,
    coupling: CouplingGraph,
    removed: tuple[int, ...],
    images: Tensor,
    *,
    generator: torch.Generator,
    options: RecoveryOptions | None = None,
    changed: frozenset[str] = frozenset(),
    stored_as: IntegerFormat | None = None,
    advance: Callable[[int], None] = lambda _units: None,
) -> tuple[GraphModule, RecoveryReport]:
    """Recover a pruned graph on unlabelled ``images`` (n, *input shape): a new graph and what was done.

    ``original`` must still carry the shapes of its capture; node names of both graphs correspond. Nodes in
    ``changed`` have another value in ``pruned`` even where no player goes (the sums of dropped blocks).
    With ``stored_as`` every layer is solved behind weights that are rounded to that form, so that it makes up
    for what those lose, too; the graph that is given back has its weights unrounded.
    """
    options = options or RecoveryOptions()
    started = time.perf_counter()
    notes: list[str] = []
    images = _within_memory(original, images, options, notes)
    solver = _Reconstruction(
        original, copy.deepcopy(pruned), coupling, removed, images, generator, options, changed, stored_as
    )
    steps = solver.run(advance)
    notes.extend(solver.notes)
    for note in notes:
        _log.warning(note)
    report = RecoveryReport(
        steps=tuple(steps),
        images=len(images),
        ridge=options.ridge,
        duration_s=time.perf_counter() - started,
        notes=tuple(notes),
    )
    solver.pruned.recompile()
    return solver.pruned, report


def _within_memory(
    original: GraphModule, images: Tensor, options: RecoveryOptions, notes: list[str]
) -> Tensor:
    """Fewer images where their activations would not fit: about eight of the largest are alive at once."""
    largest = 0
    for node in original.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            per_image = 4
            for size in value.shape[1:]:
                per_image *= int(size)
            largest = max(largest, per_image)
    limit = max(16, options.memory_limit_bytes // max(1, 8 * largest))
    if len(images) <= limit:
        return images
    notes.append(
        f"recovery used {limit} of {len(images)} images so that activations stay within "
        f"{options.memory_limit_bytes / 2**30:.1f} GiB"
    )
    return images[:limit]


class _Reconstruction:
    """State of one recovery: both networks evaluated side by side, layer after layer."""

    def __init__(
        self,
        original: GraphModule,
        pruned: GraphModule,
        coupling: CouplingGraph,
        removed: tuple[int, ...],
        images: Tensor,
        generator: torch.Generator,
        options: RecoveryOptions,
        changed: frozenset[str],
        stored_as: IntegerFormat | None,
    ) -> None:
        self.pruned = pruned
        self.notes: list[str] = []
        self._original = original
        self._gone = coupling.removed_mask(removed)
        self._rng = generator
        self._options = options
        self._layers = self._affected(coupling, changed)
        self._sites = {x.name: find_site(original, x.node) for x in self._layers}
        self._repairs = self._choose_repairs()
        self._clips = self._find_clips()
        batches = list(torch.split(images, options.images_at_once))
        self._first = LazyGraph(original, batches, self._pins_original())
        self._second = LazyGraph(pruned, batches, self._pins_pruned())
        self._stored_as = stored_as
        self._exact = {} if stored_as is None else round_layers(pruned, coupling, stored_as)

    def _affected(self, coupling: CouplingGraph, changed: frozenset[str]) -> list[WeightedLayer]:
        """Layers whose input is not what it was, in graph order."""
        seeds = {
            x.node
            for x in coupling.layers
            if len(kept_positions(x.in_players, self._gone)) < x.in_players.size
        } | changed
        nodes = {n.name: n for n in self._original.graph.nodes}
        found = [x for x in coupling.layers if depends_on(nodes[x.node], seeds)]
        solvable = []
        for layer in found:
            weight = _tensor(self.pruned, layer.weight)
            if geometry(nodes[layer.node], weight) is None:
                self.notes.append(f"{layer.name} ({layer.op}) is of a kind that recovery leaves as it is")
            elif has_computed_bias(nodes[layer.node]):
                self.notes.append(f"{layer.name}: its bias is computed, so recovery leaves it as it is")
            else:
                solvable.append(layer)
        return solvable

    def _choose_repairs(self) -> dict[str, bool]:
        """A layer repairs its residual sum when everything else in the sum has been solved before it."""
        nodes = {n.name: n for n in self._original.graph.nodes}
        unsolved = {x.node for x in self._layers}
        chosen = {}
        for layer in self._layers:
            unsolved.discard(layer.node)
            site = self._sites[layer.name]
            ready = (
                self._options.residual_repair
                and site.residual is not None
                and site.shortcut is not None
                and not depends_on(nodes[site.shortcut], unsolved | {layer.node})
                and _same_shape(nodes[site.shortcut], nodes[site.residual])
            )
            chosen[layer.name] = ready
        return chosen

    def _find_clips(self) -> dict[str, Clip | None]:
        nodes = {n.name: n for n in self._original.graph.nodes}
        wanted = self._options.clip_rounds > 0
        return {x.name: following_clip(nodes[self._target_name(x)]) if wanted else None for x in self._layers}

    def _target_name(self, layer: WeightedLayer) -> str:
        site = self._sites[layer.name]
        name = site.residual if self._repairs[layer.name] else site.linear_output
        assert name is not None
        return name

    def _pins_original(self) -> Counter[str]:
        pins: Counter[str] = Counter()
        for layer in self._layers:
            pins[self._sites[layer.name].source] += 1
            pins[self._target_name(layer)] += 1
        return pins

    def _pins_pruned(self) -> Counter[str]:
        pins: Counter[str] = Counter()
        for layer in self._layers:
            site = self._sites[layer.name]
            pins[site.source] += 1
            if self._repairs[layer.name] and site.shortcut is not None:
                pins[site.shortcut] += 1
        return pins

    def run(self, advance: Callable[[int], None]) -> list[RecoveryStep]:
        """Solve every affected layer in order."""
        steps = []
        for layer in self._layers:
            steps.append(self._solve(layer))
            advance(1)
        for path, weight in self._exact.items():
            _tensor(self.pruned, path).copy_(weight)
        return steps

    @torch.no_grad()
    def _solve(self, layer: WeightedLayer) -> RecoveryStep:
        site = self._sites[layer.name]
        node = self._second.node(layer.node)
        weight = _tensor(self.pruned, layer.weight)
        if layer.weight in self._exact:
            weight.copy_(self._exact[layer.weight])
        shape = geometry(node, weight)
        assert shape is not None
        keep_out = torch.from_numpy(kept_positions(layer.out_players, self._gone))
        picked = self._pick(layer, weight[0].numel())
        equations = NormalEquations(shape.groups, weight[0].numel(), len(weight) // shape.groups)
        read = self._reader(layer, shape, keep_out, picked)
        for rows in read():
            equations.add(rows.inputs, rows.own(rows.target))
        scale, shift = _norm_affine(self.pruned, self._second, site, len(weight))
        intercept = site.norm is not None or site.bias is not None
        offset = shift + scale * (_tensor(self.pruned, site.bias) if site.bias else 0.0)
        before = _grouped(weight.flatten(1) * scale[:, None], shape), offset.double().view(shape.groups, -1)
        start = _grouped(self._merged(layer, site, shape, keep_out) * scale[:, None], shape)

        def solve(system: NormalEquations) -> tuple[Tensor, Tensor]:
            return system.solve(start, ridge=self._options.ridge, intercept=intercept)

        fits, clip = (before, solve(equations)), self._clips[layer.name]
        if clip is None:
            found = tuple(Fit(weights=w, bias=b, error=equations.relative_error(w, b)) for w, b in fits)
        else:
            found = refit(equations, read, clip, fits, solve=solve, rounds=self._options.clip_rounds)
        best = min(found, key=lambda fit: fit.error)
        if best is not found[0]:
            self._write(layer, site, _ungrouped(best.weights), best.bias.flatten(), scale)
        if self._stored_as is not None and layer.weight in self._exact:
            self._exact[layer.weight] = weight.clone()
            round_weight(weight, self._stored_as)
        self._release(layer, site)
        return RecoveryStep(
            layer=layer.name,
            error_before=found[0].error,
            error_after=best.error,
            rows=equations.rows,
            repaired_residual=self._repairs[layer.name],
            behind_activation=clip is not None,
        )

    def _pick(self, layer: WeightedLayer, unknowns: int) -> list[Tensor]:
        """Output positions of each batch that give a row."""
        options = self._options
        least = min(options.min_rows, options.most_rows_per_unknown * unknowns)
        wanted = max(least, options.rows_per_unknown * unknowns)
        targets = self._first.value(self._target_name(layer))
        total = sum(t.shape[0] for t in targets)
        picked = []
        for target in targets:
            places = target.numel() // target.shape[self._axis(layer)]
            share = max(1, round(wanted * target.shape[0] / total))
            picked.append(torch.randperm(places, generator=self._rng)[:share].sort().values)
        return picked

    def _axis(self, layer: WeightedLayer) -> int:
        return -1 if op_name(self._second.node(layer.node)) == "linear" else 1

    def _reader(
        self, layer: WeightedLayer, shape: Geometry, keep_out: Tensor, picked: list[Tensor]
    ) -> Callable[[], Iterable[Rows]]:
        """Gives all rows each time, unfolded once where they fit into memory, else anew."""
        unknowns = _tensor(self.pruned, layer.weight)[0].numel() * shape.groups
        if sum(map(len, picked)) * unknowns * _FLOAT_BYTES > self._options.rows_limit_bytes:
            return lambda: self._rows(layer, shape, keep_out, picked)
        kept = list(self._rows(layer, shape, keep_out, picked))
        return lambda: kept

    def _rows(
        self, layer: WeightedLayer, shape: Geometry, keep_out: Tensor, picked: list[Tensor]
    ) -> Iterator[Rows]:
        """Rows of every batch at the picked positions."""
        site = self._sites[layer.name]
        inputs = self._second.value(site.source)
        targets = self._first.value(self._target_name(layer))
        repairs = self._repairs[layer.name]
        shortcuts = self._second.value(site.shortcut) if repairs and site.shortcut else None
        for index, places in enumerate(picked):
            target = targets[index].index_select(self._axis(layer), keep_out)
            yield Rows(
                inputs=rows_of(inputs[index], shape, places),
                target=targets_of(target, shape, places),
                shortcut=None if shortcuts is None else targets_of(shortcuts[index], shape, places),
            )

    def _merged(self, layer: WeightedLayer, site: LayerSite, shape: Geometry, keep_out: Tensor) -> Tensor:
        """Weights (o, d) that absorb the map from kept to all input channels (step 1)."""
        full = _tensor(self._original, layer.weight).index_select(0, keep_out)
        keep_in = torch.from_numpy(kept_positions(layer.in_players, self._gone))
        if shape.groups > 1 or len(keep_in) == full.shape[1]:
            return _tensor(self.pruned, layer.weight).flatten(1)
        kept_rows, all_rows = [], []
        limit = max(self._options.min_rows, 20 * full.shape[1])
        batches = len(self._second.value(site.source))
        for x, y in zip(self._second.value(site.source), self._first.value(site.source), strict=True):
            flat_x, flat_y = channels_last(x, shape), channels_last(y, shape)
            picked = torch.randperm(len(flat_x), generator=self._rng)[: max(1, limit // batches)]
            kept_rows.append(flat_x[picked])
            all_rows.append(flat_y[picked])
        mapping = channel_map(torch.cat(kept_rows), torch.cat(all_rows), ridge=self._options.merge_ridge)
        merged = torch.einsum("oi...,ik->ok...", full.double(), mapping)
        return merged.flatten(1).float()

    def _write(
        self, layer: WeightedLayer, site: LayerSite, weights: Tensor, bias: Tensor, scale: Tensor
    ) -> None:
        """Undo the norm's scale and put the bias into the norm (or the layer's own)."""
        weight = _tensor(self.pruned, layer.weight)
        alive = scale.abs() > _SMALLEST_SCALE
        safe = torch.where(alive, scale, torch.ones_like(scale))
        new = (weights / safe[:, None].double()).float().view_as(weight)
        weight.copy_(torch.where(alive.view(-1, *[1] * (weight.dim() - 1)), new, weight))
        if site.norm is not None:
            _absorb_bias(self.pruned, self._second, site, bias, scale, alive)
        elif site.bias is not None:
            _tensor(self.pruned, site.bias).copy_(bias.float())

    def _release(self, layer: WeightedLayer, site: LayerSite) -> None:
        self._first.release(site.source)
        self._first.release(self._target_name(layer))
        self._second.release(site.source)
        if self._repairs[layer.name] and site.shortcut is not None:
            self._second.release(site.shortcut)


def _same_shape(left: torch.fx.Node, right: torch.fx.Node) -> bool:
    a, b = left.meta.get("val"), right.meta.get("val")
    return isinstance(a, Tensor) and isinstance(b, Tensor) and tuple(a.shape[1:]) == tuple(b.shape[1:])


def _tensor(module: nn.Module, path: str) -> Tensor:
    value = get_attribute(module, path)
    assert isinstance(value, Tensor)
    return value.detach()


def _norm_parameters(graph: LazyGraph, site: LayerSite) -> list[str]:
    assert site.norm is not None
    return [str(a.target) for a in graph.node(site.norm).args[1:5]]  # type: ignore[union-attr]


def _norm_affine(module: GraphModule, graph: LazyGraph, site: LayerSite, width: int) -> tuple[Tensor, Tensor]:
    """Scale and shift (o,) of the batch norm after the layer; 1 and 0 without one."""
    if site.norm is None:
        return torch.ones(width), torch.zeros(width)
    gamma, beta, mean, variance = (_tensor(module, p) for p in _norm_parameters(graph, site))
    node = graph.node(site.norm)
    epsilon = node.args[6] if len(node.args) > 6 else node.kwargs.get("eps", 1e-5)
    if str(getattr(node.target, "overloadpacket", "")).endswith(("batch_norm", "native_batch_norm")):
        epsilon = node.args[7]
    scale = gamma / torch.sqrt(variance + float(epsilon))  # type: ignore[arg-type]
    return scale, beta - scale * mean


def _absorb_bias(
    module: GraphModule, graph: LazyGraph, site: LayerSite, bias: Tensor, scale: Tensor, alive: Tensor
) -> None:
    _, beta, mean, _ = (_tensor(module, p) for p in _norm_parameters(graph, site))
    own = _tensor(module, site.bias) if site.bias is not None else torch.zeros_like(mean)
    wanted = bias.float() + scale * (mean - own)
    beta.copy_(torch.where(alive, wanted, beta))


def _grouped(flat: Tensor, shape: Geometry) -> Tensor:
    """Weights (o, d) as (groups, d, o / groups)."""
    return flat.view(shape.groups, -1, flat.shape[1]).transpose(1, 2)


def _ungrouped(solved: Tensor) -> Tensor:
    """Weights (groups, d, o / groups) as (o, d)."""
    return solved.transpose(1, 2).flatten(0, 1)
