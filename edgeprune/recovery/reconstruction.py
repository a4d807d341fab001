"""Closed-form recovery: each layer in order is refitted to the original's output on its pruned input.

For every layer whose input changed, in graph order and on the pruned network's own activations:

1. channel merge: the weights absorb the linear map from kept to all input channels;
2. patch-level ridge regression of the whole kernel and a bias, regularised towards the result of 1;
3. where an activation hides part of the output (ReLU, SiLU), it is solved again for the error after it
   (``clipping``);
4. the target of a layer that feeds a residual add is the original sum minus the pruned shortcut, so that
   errors accumulated in the residual stream are repaired where possible.

How much of that a layer keeps is selected on images not used for fitting (``deciding``).
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.fx import GraphModule

from edgeprune.accelerator import CPU, give_back, is_full, moved
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.pruning import NetworkDecision, RecoveryReport
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.recovery.activations import ActivationStore
from edgeprune.recovery.agreement import decide_between, in_words, outputs_on
from edgeprune.recovery.solving.layers import LayerSolver, RecoveryOptions, images_at_once, stored
from edgeprune.recovery.splitting import SplitImages

_log = logging.getLogger("edgeprune.recovery")


def reconstruct(
    original: GraphModule,
    pruned: GraphModule,
    coupling: CouplingGraph,
    removed: tuple[int, ...],
    images: SplitImages,
    *,
    generator: torch.Generator,
    options: RecoveryOptions | None = None,
    changed: frozenset[str] = frozenset(),
    stored_as: IntegerFormat | None = None,
    advance: Callable[[int], None] = lambda _units: None,
    device: torch.device = CPU,
) -> tuple[GraphModule, RecoveryReport]:
    """Recover a pruned graph on unlabelled images (n, *input shape); returns a new graph and a report.

    ``original`` must still carry the shapes of its capture; node names of both graphs correspond. Nodes in
    ``changed`` have other values in ``pruned`` though no player is removed (the sums of dropped blocks).
    With ``stored_as`` every layer is solved with the preceding weights rounded to that format, so that it
    also compensates for their errors; the returned graph, on the CPU, has unrounded weights. Where the memory
    of a GPU does not hold what it takes, recovery begins again with half of everything.

    Raises:
        torch.OutOfMemoryError, RuntimeError: the memory of a GPU does not suffice for one image at once.
    """
    options, drawn, done = options or RecoveryOptions(), generator.get_state(), 0

    def step(units: int) -> None:
        nonlocal done
        done += units
        advance(units)

    while True:
        try:
            return _reconstruct(
                original,
                pruned,
                coupling,
                removed,
                images,
                generator,
                options,
                changed,
                stored_as,
                step,
                device,
            )
        except RuntimeError as error:
            at_once = images_at_once(original, options)
            if not is_full(error) or at_once == 1:
                raise
            _log.warning("the memory of the GPU does not hold the recovery of %d images at once", at_once)
        options = replace(
            options,
            images_at_once=at_once // 2,
            memory_limit_bytes=options.memory_limit_bytes // 2,
            rows_limit_bytes=options.rows_limit_bytes // 2,
            gpu_share=options.gpu_share / 2,
        )
        give_back()
        generator.set_state(drawn)
        advance(-done)
        done = 0


def _reconstruct(
    original: GraphModule,
    pruned: GraphModule,
    coupling: CouplingGraph,
    removed: tuple[int, ...],
    images: SplitImages,
    generator: torch.Generator,
    options: RecoveryOptions,
    changed: frozenset[str],
    stored_as: IntegerFormat | None,
    advance: Callable[[int], None],
    device: torch.device,
) -> tuple[GraphModule, RecoveryReport]:
    started = time.perf_counter()
    original, bare = moved(original, device), moved(pruned, device)
    with ActivationStore(
        memory_limit_bytes=options.memory_limit_bytes, device=device, gpu_share=options.gpu_share
    ) as store:
        solver = LayerSolver(
            original, copy.deepcopy(bare), coupling, removed, images, generator, options, changed,
            stored_as, store,
        )  # fmt: skip
        steps = solver.run(advance)
        notes = [*dict.fromkeys(solver.notes), *store.notes]
    if not len(images.deciding) and steps:
        notes.append("there is a single image to fit with and none to decide, so recovery changed nothing")
    solver.pruned.recompile()
    recovered, decision = moved(solver.pruned, CPU), None
    if steps and len(images.deciding):
        decision = _decide(original, stored(bare, coupling, stored_as), solver.stored(), images)
        recovered = recovered if decision.taken else copy.deepcopy(pruned)
    if decision is not None and not decision.taken:
        notes.append(in_words(decision))
    for note in notes:
        _log.warning(note)
    report = RecoveryReport(
        steps=tuple(steps),
        images=len(images.fitting),
        deciding_images=len(images.deciding),
        duration_s=time.perf_counter() - started,
        notes=tuple(notes),
        decision=decision,
    )
    return recovered, report


def _decide(
    original: GraphModule, pruned: GraphModule, recovered: GraphModule, images: SplitImages
) -> NetworkDecision:
    """Whether recovery brought the network closer to the original on the deciding images."""
    outputs = [outputs_on(m, images.images, images.deciding) for m in (original, pruned, recovered)]
    return decide_between("recovery", *outputs, class_scores=images.class_scores)
