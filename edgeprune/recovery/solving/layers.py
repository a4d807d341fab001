"""Solve the layers of a pruned network in order, each on the outputs of those before it."""

from __future__ import annotations

import copy
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.accelerator import exact
from edgeprune.artifacts.coupling import CouplingGraph, WeightedLayer, kept_positions
from edgeprune.artifacts.pruning import RecoveryStep
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.fake_quant import round_layers, round_weight, rounded
from edgeprune.recovery.activations import GPU_SHARE, MEMORY_LIMIT_BYTES, ActivationStore
from edgeprune.recovery.network_pair import NetworkPair, RowRequest
from edgeprune.recovery.solving.clipping import Activation, following_activation
from edgeprune.recovery.solving.deciding import Candidate, LayerProblem, decide
from edgeprune.recovery.solving.least_squares import NormalEquations
from edgeprune.recovery.solving.merging import Merged, MergePlace, merge, merge_places
from edgeprune.recovery.solving.norms import norm_affine, tensor, write_solution
from edgeprune.recovery.splitting import SplitImages
from edgeprune.recovery.structure import (
    Geometry,
    depends_on,
    find_site,
    geometry,
    grouped,
    has_computed_bias,
    same_shape,
    ungrouped,
)

_log = logging.getLogger("edgeprune.recovery")
_FLOAT_BYTES = 4
_CHUNK_BYTES = 3 * 2**23
"""Of the largest activation of a chunk: what the allocator reuses instead of asking the system again."""


@dataclass(frozen=True, kw_only=True)
class RecoveryOptions:
    """``ridges`` are relative to the mean diagonal of the Gram matrix; each layer takes one of them.

    A layer has ``rows_per_unknown`` rows per unknown, at least ``min_rows`` (fewer for depthwise kernels).
    ``clip_rounds`` refits follow behind an activation; 0 keeps plain least squares. Rows of a layer are
    cached up to ``rows_limit_bytes``; activations of all images are in memory up to ``memory_limit_bytes`` or
    the share ``gpu_share`` of what is free on a GPU, the rest in temporary files.
    """

    ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    merge_ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    rows_per_unknown: int = 60
    min_rows: int = 20_000
    most_rows_per_unknown: int = 100
    most_unknowns: int = 6144
    images_at_once: int = 100
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES
    rows_limit_bytes: int = 2**28
    gpu_share: float = GPU_SHARE
    residual_repair: bool = True
    clip_rounds: int = 3


def stored(network: GraphModule, coupling: CouplingGraph, form: IntegerFormat | None) -> GraphModule:
    """A copy of the network with its weights rounded to the stored format; itself without a ``form``."""
    if form is None:
        return network
    rounded_copy = copy.deepcopy(network)
    round_layers(rounded_copy, coupling, form)
    return rounded_copy


def images_at_once(original: GraphModule, options: RecoveryOptions) -> int:
    """Images per chunk, so that the largest activation stays within ``_CHUNK_BYTES``."""
    largest = 1
    for node in original.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            largest = max(largest, math.prod(int(size) for size in value.shape[1:]))
    return max(1, min(options.images_at_once, _CHUNK_BYTES // (_FLOAT_BYTES * largest)))


class LayerSolver:
    """State of one recovery: both networks evaluated side by side, layer after layer."""

    def __init__(
        self,
        original: GraphModule,
        pruned: GraphModule,
        coupling: CouplingGraph,
        removed: tuple[int, ...],
        images: SplitImages,
        generator: torch.Generator,
        options: RecoveryOptions,
        changed: frozenset[str],
        stored_as: IntegerFormat | None,
        store: ActivationStore,
    ) -> None:
        self.pruned = pruned
        self.notes: list[str] = []
        self._original = original
        self._coupling = coupling
        self._nodes = {n.name: n for n in original.graph.nodes}
        self._gone = coupling.removed_mask(removed)
        self._options = options
        self._layers = self._affected(coupling, changed)
        self._sites = {x.name: find_site(original, x.node) for x in self._layers}
        self._repairs = self._choose_repairs()
        self._activations = self._find_activations()
        self._pair = NetworkPair(
            original, pruned, images, (self._pins_original(), self._pins_pruned()), store,
            images_at_once=images_at_once(original, options), generator=generator,
            targets={self._target_name(x): x.op for x in self._layers},
        )  # fmt: skip
        self._stored_as = stored_as
        self._exact = {} if stored_as is None else round_layers(pruned, coupling, stored_as)

    def _affected(self, coupling: CouplingGraph, changed: frozenset[str]) -> list[WeightedLayer]:
        """Solvable layers whose input changed, in graph order."""
        seeds = {
            x.node
            for x in coupling.layers
            if len(kept_positions(x.in_players, self._gone)) < x.in_players.size
        } | changed
        affected = [x for x in coupling.layers if depends_on(self._nodes[x.node], seeds)]
        solvable = []
        for layer in affected:
            weight = tensor(self.pruned, layer.weight)
            if geometry(self._nodes[layer.node], weight) is None:
                name = layer.name.partition(".weight_")[0]  # one note for all weights of a recurrent op
                self.notes.append(f"{name} ({layer.op}) is of a kind that recovery leaves as it is")
            elif has_computed_bias(self._nodes[layer.node]):
                self.notes.append(f"{layer.name}: its bias is computed, so recovery leaves it as it is")
            else:
                solvable.append(layer)
        return solvable

    def _choose_repairs(self) -> dict[str, bool]:
        """By layer: whether it repairs its residual sum, which needs the shortcut to be solved before it."""
        unsolved = {x.node for x in self._layers}
        chosen = {}
        for layer in self._layers:
            unsolved.discard(layer.node)
            site = self._sites[layer.name]
            ready = (
                self._options.residual_repair
                and site.residual is not None
                and site.shortcut is not None
                and not depends_on(self._nodes[site.shortcut], unsolved | {layer.node})
                and same_shape(self._nodes[site.shortcut], self._nodes[site.residual])
            )
            chosen[layer.name] = ready
        return chosen

    def _find_activations(self) -> dict[str, Activation | None]:
        wanted = self._options.clip_rounds > 0
        return {
            x.name: following_activation(self._nodes[self._target_name(x)]) if wanted else None
            for x in self._layers
        }

    def _target_name(self, layer: WeightedLayer) -> str:
        site = self._sites[layer.name]
        name = site.residual if self._repairs[layer.name] else site.linear_output
        assert name is not None
        return name

    def _merge_places(self, layer: WeightedLayer) -> tuple[MergePlace, ...]:
        """Nodes for the channel merge; none if all input channels are kept or the convolution is grouped."""
        full = tensor(self._original, layer.weight)
        shape = geometry(self._nodes[layer.node], full)
        kept = len(kept_positions(layer.in_players, self._gone))
        if shape is None or shape.groups > 1 or kept == full.shape[1]:
            return ()
        return merge_places(self._nodes[self._sites[layer.name].source], full.shape[1])

    def _is_solvable(self, layer: WeightedLayer) -> bool:
        """Whether the Gram matrix of the unknowns fits into memory; wider layers are only merged."""
        return tensor(self.pruned, layer.weight)[0].numel() <= self._options.most_unknowns

    def _read_original(self, layer: WeightedLayer) -> list[str]:
        """Nodes of the original that the solution of a layer reads."""
        site = self._sites[layer.name]
        return [
            self._target_name(layer),
            *(place.node for place in self._merge_places(layer)),
            *([site.linear_output] if self._repairs[layer.name] else []),
        ]

    def _read_pruned(self, layer: WeightedLayer) -> list[str]:
        site = self._sites[layer.name]
        repairs = self._repairs[layer.name] and site.shortcut is not None
        places = (place.node for place in self._merge_places(layer))
        return [site.source, *places, *([str(site.shortcut)] if repairs else [])]

    def _pins_original(self) -> Counter[str]:
        return Counter(name for x in self._layers for name in self._read_original(x))

    def _pins_pruned(self) -> Counter[str]:
        return Counter(name for x in self._layers for name in self._read_pruned(x))

    def stored(self) -> GraphModule:
        """The recovered network with its weights in the stored format."""
        return stored(self.pruned, self._coupling, self._stored_as)

    def run(self, advance: Callable[[int], None]) -> list[RecoveryStep]:
        """Solve every affected layer in order."""
        steps = []
        for layer in self._layers:
            steps.append(self._solve(layer))
            advance(1)
        for path, weight in self._exact.items():
            tensor(self.pruned, path).copy_(weight)
        return steps

    @torch.no_grad()
    def _solve(self, layer: WeightedLayer) -> RecoveryStep:
        site = self._sites[layer.name]
        weight = tensor(self.pruned, layer.weight)
        if layer.weight in self._exact:
            weight.copy_(self._exact[layer.weight])
        shape = geometry(self._pair.pruned.node(layer.node), weight)
        assert shape is not None
        norm = None if site.norm is None else self._pair.pruned.node(site.norm)
        scale, shift = norm_affine(self.pruned, norm, len(weight))
        sizes = (shape.groups, weight[0].numel(), len(weight) // shape.groups)
        equations = NormalEquations(*sizes, solvable=self._is_solvable(layer), device=weight.device)
        problem = self._problem(layer, shape, scale, shift)
        choice = decide(problem, equations)
        taken = choice.taken
        if taken.changed:
            write_solution(self.pruned, site, norm, ungrouped(taken.weights), taken.bias.flatten(), scale)
        if self._stored_as is not None and layer.weight in self._exact:
            self._exact[layer.weight] = weight.clone()
            round_weight(weight, self._stored_as)
        for name in self._read_original(layer):
            self._pair.original.release(name)
        for name in self._read_pruned(layer):
            self._pair.pruned.release(name)
        _log.debug("%s: %s", layer.name, _words(taken, choice.error_before))
        return RecoveryStep(
            layer=layer.name,
            error_before=choice.error_before,
            error_after=taken.error,
            rows=equations.rows,
            repaired_residual=taken.changed and taken.repaired,
            behind_activation=problem.activation is not None,
            changed=taken.changed,
            ridge=taken.ridge,
            rounds=taken.rounds,
        )

    def _problem(self, layer: WeightedLayer, shape: Geometry, scale: Tensor, shift: Tensor) -> LayerProblem:
        site = self._sites[layer.name]
        weight = tensor(self.pruned, layer.weight)
        keep_out = torch.from_numpy(kept_positions(layer.out_players, self._gone))
        merged = Merged(weights=[weight.flatten(1)], metrics=[])
        if places := self._merge_places(layer):
            full = tensor(self._original, layer.weight).index_select(0, keep_out.to(weight.device))
            merged = merge(
                self._pair, places, shape, full,
                ridges=self._options.merge_ridges, min_rows=self._options.min_rows,
            )  # fmt: skip
        request = RowRequest(
            site=site,
            shape=shape,
            keep_out=keep_out,
            target=self._target_name(layer),
            repairs=self._repairs[layer.name],
            unknowns=weight[0].numel(),
        )
        picked = self._pair.pick(request, self._wanted_rows(request.unknowns))
        limit = self._options.rows_limit_bytes
        fitting, deciding = (
            self._pair.reader(request, picked, fits=f, limit_bytes=limit) for f in (True, False)
        )
        offset = shift + scale * (tensor(self.pruned, site.bias) if site.bias else 0.0)
        return LayerProblem(
            fitting=fitting,
            deciding=deciding,
            before=(
                grouped(weight.flatten(1) * scale[:, None], shape),
                exact(offset).view(shape.groups, -1),
            ),
            merged=[grouped(m * scale[:, None], shape) for m in merged.weights],
            metrics=merged.metrics,
            activation=self._activations[layer.name],
            intercept=site.norm is not None or site.bias is not None,
            repairable=self._repairs[layer.name],
            ridges=self._options.ridges if self._is_solvable(layer) else (),
            rounds=self._options.clip_rounds if self._is_solvable(layer) else 0,
            stored=self._as_stored(layer, shape),
        )

    def _as_stored(self, layer: WeightedLayer, shape: Geometry) -> Callable[[Tensor], Tensor]:
        """Rounding of weights (groups, d, o); the norm's per-channel scale does not change it."""
        form = self._stored_as
        if form is None or layer.weight not in self._exact:
            return lambda weights: weights

        def stored(weights: Tensor) -> Tensor:
            flat = exact(ungrouped(weights)).cpu().numpy()
            return grouped(torch.from_numpy(rounded(flat, form)).to(weights.device), shape)

        return stored

    def _wanted_rows(self, unknowns: int) -> int:
        options = self._options
        least = min(options.min_rows, options.most_rows_per_unknown * unknowns)
        return max(least, options.rows_per_unknown * unknowns)


def _words(taken: Candidate, before: float) -> str:
    if not taken.changed:
        return f"left as it is, error {before:.4f}"
    how = "merged" if taken.ridge is None else f"ridge {taken.ridge:g}, {taken.rounds} rounds"
    return f"{how}{', residual repaired' if taken.repaired else ''}, error {before:.4f} -> {taken.error:.4f}"
