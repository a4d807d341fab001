"""Stages from loading to recovery: everything before a file is written."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from edgeprune import parity
from edgeprune.accelerator import CPU, find_device, in_words
from edgeprune.artifacts.calibration import CalibrationSet
from edgeprune.artifacts.choices import ComputeDevice
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel, LoadedModel, shape_words
from edgeprune.artifacts.pruning import RecoveryReport
from edgeprune.artifacts.quantization import IntegerFormat, Precision
from edgeprune.artifacts.report import ParityFigure
from edgeprune.calibration import load_calibration
from edgeprune.capture.capture import capture
from edgeprune.capture.constants import read_constants, with_constants
from edgeprune.capture.inputs import input_names
from edgeprune.capture.joining import with_joined_inputs
from edgeprune.commands.run.checks import check_inputs, check_outputs
from edgeprune.commands.run.iterative_pruning import RoundsRanker
from edgeprune.commands.run.kept_stages import kept_network
from edgeprune.commands.run.shared.cached_recovery import cached_recovery
from edgeprune.commands.run.state import (
    PARITY_IMAGES,
    Planned,
    Prepared,
    Pruned,
    Run,
    Variant,
    split_for_recovery,
)
from edgeprune.coupling.coupling import couple
from edgeprune.coupling.plugins import ruled_operators
from edgeprune.errors import CaptureError
from edgeprune.evaluation.registry import for_task
from edgeprune.games.block_game import block_module
from edgeprune.loading import load_model
from edgeprune.loading.open_sizes import open_sizes
from edgeprune.notes import Fact
from edgeprune.pruning.masking import full_masks, mask_module
from edgeprune.pruning.surgery import prune
from edgeprune.quantization.formats import integer_format
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.selection import select
from edgeprune.system import progress
from edgeprune.system.imports import user_code
from edgeprune.targets import TargetProfile, load_target

DEFAULT_RATIO = 0.25
PARITY_TOLERANCE = 1e-4


def prepare(run: Run) -> Prepared:
    """Load, calibrate, capture and couple."""
    options = run.options
    target, device = load_target(options.target), find_device(options.compute_device)
    if device != CPU:
        run.note(
            f"ranked and recovered on {in_words(device)}, whose last digits are not those of a processor"
        )
    elif options.compute_device is ComputeDevice.AUTO:
        run.note("--device auto found no GPU, so all was computed on the processor")
    loaded, calibration = _model_and_images(run)
    with run.stage("capture"):
        captured = with_joined_inputs(
            capture(loaded.module, calibration.input_shapes), input_names(loaded.module)
        )
    run.notes.extend(captured.notes)
    check_inputs(captured, options)
    check_outputs(captured, calibration)
    with run.stage("couple"):
        coupling = couple(captured, options.coupling)
    for caution in coupling.notes:
        run.note(caution)
    if coupling.unruled_ops:
        run.note("ops without a rule, their channels stay: " + ", ".join(coupling.unruled_ops))
    return Prepared(
        loaded=loaded,
        calibration=calibration,
        captured=captured,
        coupling=coupling,
        target=target,
        stored_as=_stored_as(run, target),
        device=device,
    )


def _model_and_images(run: Run) -> tuple[LoadedModel, CalibrationSet]:
    """The model, then the images in its shape; the images first where an ONNX file leaves their size open."""
    sizes = None if run.options.input_shape is not None else open_sizes(run.options.model)
    if sizes is None:
        loaded = _load(run, run.options.input_shape)
        return loaded, _calibrate(
            run, run.options.input_shape or loaded.input_shape, input_names(loaded.module)
        )
    calibration = _calibrate(run, sizes)
    shape = calibration.input_shape
    run.note(
        f"the file leaves the size of its images open; that of the calibration images, {shape_words(shape)}, "
        "was taken (--input-shape: another)"
    )
    return _load(run, shape), calibration


def _load(run: Run, shape: tuple[int, ...] | None) -> LoadedModel:
    """Load the model, called without the inputs that are the same for every image."""
    options = run.options
    with run.stage("load"):
        constants = read_constants(options.constants)
        loaded = load_model(
            options.model,
            architecture=options.arch,
            arch_kwargs=options.arch_kwargs,
            weights=options.weights,
            weights_key=options.weights_key,
            trust_pickle=options.trust_pickle,
            input_shape=shape,
            operators=ruled_operators(),
        )
        loaded = replace(loaded, module=with_constants(loaded.module, constants))
    run.notes.extend(loaded.notes)
    if constants:
        told = (f"{name} {shape_words(tuple(value.shape))}" for name, value in constants.items())
        run.note(Fact(f"inputs that are the same for every image: {', '.join(told)}"))
    return loaded


def _calibrate(run: Run, shape: tuple[int | None, ...] | None, names: tuple[str, ...] = ()) -> CalibrationSet:
    """Read the calibration data in the shape that the model takes, as far as it is known."""
    options = run.options
    assert options.calibration is not None
    with run.stage("calibration data"):
        calibration = load_calibration(
            options.calibration,
            labels=options.labels,
            task=options.task,
            preprocessing=options.preprocessing,
            max_images=options.max_images,
            held_out_fraction=options.held_out,
            seed=options.seed,
            input_shape=shape,
            input_names=names,
        )
    run.notes.extend(calibration.warnings)
    calibration, left_out = for_task(calibration, options)
    for note in left_out:
        run.note(note)
    return calibration


def _stored_as(run: Run, target: TargetProfile) -> IntegerFormat | None:
    """Integer format of the stored weights, if they are rounded."""
    if run.options.stored_in not in (Precision.INT8, Precision.AUTO):
        return None
    run.notes.append(Fact("channels are ranked and recovered with their weights rounded to 8 bits"))
    return integer_format(target)


def quantum_of(run: Run, target: TargetProfile) -> int:
    """What was asked for, else the target's in the precision of the run; told where 8 bits have their own."""
    if run.options.width_quantum is not None:
        return run.options.width_quantum
    quantum = target.quantum_in(run.options.stored_in)
    if quantum != target.width_quantum:
        told = Fact(
            f"widths go in steps of {quantum}, as kernels of {target.name} in 8 bits compute them (in 32 "
            f"bits {target.width_quantum})"
        )
        if told not in run.notes:  # a search asks for every plan
            run.notes.append(told)
    return quantum


def plan(run: Run, prepared: Prepared) -> Planned:
    """Rank all players and select those to remove."""
    options = run.options
    ratio = options.ratio if options.ratio is not None else DEFAULT_RATIO
    coupling = prepared.coupling
    quantum = quantum_of(run, prepared.target)
    # Select first on a flat ranking: an impossible request must fail before minutes of ranking.
    select(
        np.ones(coupling.num_players), coupling, ratio=ratio, width_quantum=quantum,
        adapt_quantum=options.width_quantum is None,
    )  # fmt: skip
    ranking = RoundsRanker(run, prepared, run.journals).at(ratio)
    with run.stage("select"):
        chosen = select(
            ranking.removal_costs,
            coupling,
            ratio=ratio,
            width_quantum=quantum,
            adapt_quantum=options.width_quantum is None,
        )
    run.notes.extend(chosen.notes)
    if norms := coupling.renormalised(coupling.removed_mask(chosen.removed)):
        run.note(
            f"{len(norms)} norms take their statistics over fewer channels than in training, as "
            "--prune-normalized allows; masks and ranking reckoned with that"
        )
    asked_by = "--ratio" if options.ratio is not None else "default"
    return Planned(variant=prepared.variant, ranking=ranking, plan=chosen, ratio_asked_by=asked_by)


def prune_and_recover(run: Run, prepared: Prepared, planned: Planned) -> Pruned:
    """Remove the players, check removal against masking, and recover without training."""
    whole, variant = prepared.captured, planned.variant
    captured, coupling, removed = variant.captured, variant.coupling, planned.plan.removed
    with run.stage("prune"):
        bare = prune(captured, coupling, removed)
    sample = prepared.calibration.fitting.images[:PARITY_IMAGES]
    with run.stage("verify pruning"):
        remedy = "let it run on every image of the shape that it takes"
        with user_code("the model, run on calibration images,", CaptureError, remedy):
            original = parity.run_torch(prepared.given, sample)
        traced = parity.run_torch(whole.graph_module, sample)
        masked = _run_masked(captured, coupling, removed, sample)
        removed_outputs = parity.run_torch(bare, sample)
        figures_found = (
            compare_outputs(original, traced, "original", "captured graph"),
            *_without_blocks(whole, variant, sample),
            compare_outputs(masked, removed_outputs, "masked", "pruned"),
        )
        parity.require(figures_found)
    with run.stage("recover"):
        recovered, report = _recovered(run, prepared, planned, bare, trains=run.options.finetune is not None)
    run.notes.extend(report.notes)
    return Pruned(bare=bare, recovered=recovered, recovery=report, parity=figures_found)


def recover_on_all(run: Run, prepared: Prepared, planned: Planned, pruned: Pruned) -> Pruned:
    """Recover anew with the images that were kept back from it to judge the training, which was thrown away.

    What is delivered is then what a run without training delivers.
    """
    before = pruned.recovery.images + pruned.recovery.deciding_images
    with run.stage("recover on all images"):
        recovered, report = _recovered(run, prepared, planned, pruned.bare, trains=False)
    run.note(
        f"training was thrown away, so recovery ran again on all {report.images + report.deciding_images} "
        f"images to fit with, not only on the {before} that were not kept back to judge the training"
    )
    run.notes.extend(note for note in report.notes if note not in run.notes)
    return replace(pruned, recovered=recovered, finetuned=copy.deepcopy(recovered), recovery=report)


def _recovered(
    run: Run, prepared: Prepared, planned: Planned, bare: GraphModule, *, trains: bool
) -> tuple[GraphModule, RecoveryReport]:
    """Recovery in closed form; where training follows, without the images that judge it."""
    variant, removed = planned.variant, planned.plan.removed
    images = split_for_recovery(run, prepared)
    if trains:
        images = images.without_deciding(torch.Generator().manual_seed(run.options.seed))
    name = "recovered" if trains or run.options.finetune is None else "recovered-on-all"
    with progress.task("recovering layers in closed form", len(variant.coupling.layers)) as advance:

        def make() -> tuple[GraphModule, RecoveryReport]:
            return reconstruct(
                prepared.captured.graph_module,
                bare,
                variant.coupling,
                removed,
                images,
                changed=frozenset(block.add for block in variant.dropped),
                stored_as=prepared.stored_as,
                generator=torch.Generator().manual_seed(run.options.seed),
                advance=advance,
                device=prepared.device,
            )

        return kept_network(
            run, run.journals, name, bare, removed, RecoveryReport,
            lambda: cached_recovery(run, prepared, variant, bare, removed, make, trains=trains),
        )  # fmt: skip


def _without_blocks(whole: CapturedModel, variant: Variant, images: Tensor) -> tuple[ParityFigure, ...]:
    """Compare dropped blocks with the whole network with their branches masked."""
    if not variant.dropped:
        return ()
    module = block_module(whole, variant.dropped)

    def masked(batch: Tensor) -> object:
        masks = full_masks(len(batch), len(variant.dropped))
        masks[:, : len(variant.dropped)] = 0.0
        return module(batch, masks)

    without = parity.run_torch(variant.captured.graph_module, images)
    return (compare_outputs(parity.run_torch(masked, images), without, "blocks masked", "blocks dropped"),)


def _run_masked(
    captured: CapturedModel, coupling: CouplingGraph, removed: tuple[int, ...], images: Tensor
) -> parity.Outputs:
    module = mask_module(captured, coupling)

    def masked(batch: Tensor) -> object:
        masks = full_masks(len(batch), coupling.num_players)
        masks[:, list(removed)] = 0.0
        return module(batch, masks)

    return parity.run_torch(masked, images)


def compare_outputs(a: parity.Outputs, b: parity.Outputs, first: str, second: str) -> ParityFigure:
    """Compare the outputs of two consecutive stages at the conversion tolerance."""
    return parity.compare(a, b, names=(first, second), tolerance=PARITY_TOLERANCE)
