"""Stages from loading to recovery: everything before a file is written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune import limits, parity
from edgeprune.accelerator import CPU, find_device, in_words
from edgeprune.artifacts.calibration import CalibrationSet
from edgeprune.artifacts.choices import ComputeDevice
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel, shape_words, takes_several
from edgeprune.artifacts.pruning import DistillationReport, RecoveryReport
from edgeprune.artifacts.quantization import IntegerFormat, Precision
from edgeprune.artifacts.report import ParityFigure
from edgeprune.calibration import load_calibration
from edgeprune.capture.capture import capture
from edgeprune.commands.run.iterative_pruning import RoundsRanker
from edgeprune.commands.run.kept_stages import kept_network
from edgeprune.commands.run.state import (
    PARITY_IMAGES,
    Planned,
    Prepared,
    Pruned,
    Run,
    Variant,
    split_for_recovery,
)
from edgeprune.commands.run.time_limits import note_training_cut, training_limit_s
from edgeprune.coupling.coupling import couple
from edgeprune.coupling.plugins import ruled_operators
from edgeprune.errors import CalibrationError, CaptureError, ModelLoadError, UsageError
from edgeprune.evaluation.registry import check_task, for_task
from edgeprune.fx import tensor_leaves
from edgeprune.games.block_game import block_module
from edgeprune.loading import load_model
from edgeprune.options.project_file import check_ratio
from edgeprune.options.runs import CompressOptions
from edgeprune.profiling.runner import runner_for
from edgeprune.pruning.masking import full_masks, mask_module
from edgeprune.pruning.surgery import prune
from edgeprune.quantization.formats import integer_format
from edgeprune.recovery.distillation.training import DistillationOptions, distill
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.recovery.splitting import LEAST_DECIDING, SplitImages
from edgeprune.selection import select
from edgeprune.storage import outputs
from edgeprune.system import progress
from edgeprune.system.imports import user_code
from edgeprune.targets import TargetProfile, load_target

DEFAULT_RATIO = 0.25
PARITY_TOLERANCE = 1e-4


def check_options(options: CompressOptions) -> None:
    """Check the option values before any stage.

    Raises:
        UsageError: names the option, its value and what is accepted.
    """
    if options.ratio is not None:
        check_ratio(options.ratio)
    limits.HELD_OUT.check("--held-out", options.held_out)
    limits.WIDTH_QUANTUM.check("--width-quantum", options.width_quantum)
    limits.BATCH_SIZE.check("--batch-size", options.batch_size)
    limits.THREADS.check("--threads", options.threads)
    limits.IMAGES.check("--max-images", options.max_images)
    limits.SEED.check("--seed", options.seed)
    if options.finetune is not None:
        limits.FINETUNE_STEPS.check("--finetune", options.finetune.steps)
        if options.finetune.time_limit_s is not None:
            limits.TIME_S.check("--finetune", options.finetune.time_limit_s)
    _check_precision(options)
    check_task(options, options.budget.max_drop_points)
    if options.recipe is not None and options.finetune is not None:
        raise UsageError("--recipe and --finetune were both given; accepted is one way of training")
    if takes_several(options.input_shape):
        raise UsageError(
            f"--input-shape was given for several inputs, {shape_words(options.input_shape or ())}; accepted "
            "is one image input, since calibration data are single images: wrap the model so that the others "
            "are constants"
        )
    if options.calibration is None:
        raise CalibrationError(
            "no calibration data were given; accepted are a folder of images, an .npz file or "
            "package.module:function: name one with --calibration."
        )
    if options.folder is not None:
        outputs.check_destination(options.folder, overwrite=options.overwrite, reads=read_by(options))


def read_by(options: CompressOptions) -> dict[str, str | Path | None]:
    """Paths that a run reads, by role; ``None`` for a module in memory."""
    return {
        "model": None if isinstance(options.model, nn.Module) else options.model,
        "calibration data": options.calibration,
        "labels": options.labels,
        "weights": options.weights,
        "file of --arch": options.arch,
        "recipe": options.recipe,
        "metric": options.metric,
        "ranking": options.ranking,
        "target profile": options.target,
    }


def _check_precision(options: CompressOptions) -> None:
    """Check that a limited latency is known for the precision."""
    budget = options.budget
    limited = budget.max_latency_ms is not None or budget.max_latency_share is not None
    runner = runner_for(load_target(options.target), threads=1)
    if limited and options.device is None and not runner.knows(options.precision):
        raise UsageError(
            f"--max-latency was given with --precision {options.precision.value} and --target "
            f"{options.target}, whose latency in 8 bits is not known here; accepted there are --max-size, "
            "--max-memory and --max-drop, or measure on the device itself with --ssh"
        )


def prepare(run: Run) -> Prepared:
    """Load, calibrate, capture and couple."""
    options = run.options
    assert options.calibration is not None
    target, device = load_target(options.target), find_device(options.compute_device)
    if device != CPU:
        run.note(
            f"ranked and recovered on {in_words(device)}, whose last digits are not those of a processor"
        )
    elif options.compute_device is ComputeDevice.AUTO:
        run.note("--device auto found no GPU, so all was computed on the processor")
    with run.stage("load"):
        loaded = load_model(
            options.model,
            architecture=options.arch,
            arch_kwargs=options.arch_kwargs,
            weights=options.weights,
            weights_key=options.weights_key,
            trust_pickle=options.trust_pickle,
            input_shape=options.input_shape,
            operators=ruled_operators(),
        )
    run.notes.extend(loaded.notes)
    with run.stage("calibration data"):
        calibration = load_calibration(
            options.calibration,
            labels=options.labels,
            task=options.task,
            preprocessing=options.preprocessing,
            max_images=options.max_images,
            held_out_fraction=options.held_out,
            seed=options.seed,
            input_shape=options.input_shape or loaded.input_shape,
        )
    run.notes.extend(calibration.warnings)
    calibration, left_out = for_task(calibration, options)
    for note in left_out:
        run.note(note)
    with run.stage("capture"):
        captured = capture(loaded.module, calibration.input_shape)
    run.notes.extend(captured.notes)
    _check_outputs(captured, calibration)
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


def _stored_as(run: Run, target: TargetProfile) -> IntegerFormat | None:
    """Integer format of the stored weights, if they are rounded."""
    if run.options.precision not in (Precision.INT8, Precision.AUTO):
        return None
    run.notes.append("channels are ranked and recovered with their weights rounded to 8 bits")
    return integer_format(target)


def _check_outputs(captured: CapturedModel, calibration: CalibrationSet) -> None:
    """Check that the model's outputs are finite and that every label has a class."""
    with torch.no_grad():
        model_outputs = tensor_leaves(captured.graph_module(calibration.fitting.images[:8]))
    if not all(bool(torch.isfinite(t).all()) for t in model_outputs):
        raise ModelLoadError(
            "the model gives NaN or infinite outputs on the calibration images; accepted is a trained "
            "model with finite outputs: check the weights and the preprocessing (--mean, --std)."
        )
    labels = calibration.fitting.labels
    if labels is not None and model_outputs[0].dim() == 2:
        classes, highest = int(model_outputs[0].shape[1]), int(labels.max())
        if classes == 1:
            raise CalibrationError(
                "the calibration data have labels, but the model has a single output and no classes; "
                "give the images without labels"
            )
        if highest >= classes:
            raise CalibrationError(
                f"the calibration data have a label {highest}, but the model has {classes} classes (0 to "
                f"{classes - 1}); name the class folders in the model's order, or give the images without "
                "labels."
            )


def plan(run: Run, prepared: Prepared) -> Planned:
    """Rank all players and select those to remove."""
    options = run.options
    ratio = options.ratio if options.ratio is not None else DEFAULT_RATIO
    coupling = prepared.coupling
    quantum = options.width_quantum or prepared.target.width_quantum
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
            original = parity.run_torch(prepared.loaded.module, sample)
        traced = parity.run_torch(whole.graph_module, sample)
        masked = _run_masked(captured, coupling, removed, sample)
        removed_outputs = parity.run_torch(bare, sample)
        figures_found = (
            compare_outputs(original, traced, "original", "captured graph"),
            *_without_blocks(whole, variant, sample),
            compare_outputs(masked, removed_outputs, "masked", "pruned"),
        )
        parity.require(figures_found)
    images = split_for_recovery(run, prepared)
    recovering = images
    if run.options.finetune is not None:
        recovering = images.without_deciding(torch.Generator().manual_seed(run.options.seed))
    with run.stage("recover"):
        layers = len(coupling.layers)
        changed = frozenset(block.add for block in variant.dropped)
        with progress.task("recovering layers in closed form", layers) as advance:
            recovered, report = kept_network(
                run, run.journals, "recovered", bare, removed, RecoveryReport,
                lambda: reconstruct(
                    whole.graph_module,
                    bare,
                    coupling,
                    removed,
                    recovering,
                    changed=changed,
                    stored_as=prepared.stored_as,
                    generator=torch.Generator().manual_seed(run.options.seed),
                    advance=advance,
                    device=prepared.device,
                ),
            )  # fmt: skip
    run.notes.extend(report.notes)
    pruned = Pruned(bare=bare, recovered=recovered, recovery=report, parity=figures_found)
    return pruned if run.options.finetune is None else _finetune(run, prepared, planned, pruned, images)


def check_training(run: Run, prepared: Prepared) -> None:
    """Check before ranking that enough images are left to decide when training stops.

    Raises:
        CalibrationError: too few images to hold some out.
    """
    if run.options.finetune is None:
        return
    images = split_for_recovery(run, prepared)
    if len(images.deciding) >= LEAST_DECIDING:
        return
    raise CalibrationError(
        f"--finetune keeps {LEAST_DECIDING} images back to know when to stop, and there are "
        f"{len(images.images)} to fit with; give at least {2 * LEAST_DECIDING}, or leave --finetune out"
    )


def _finetune(run: Run, prepared: Prepared, planned: Planned, pruned: Pruned, images: SplitImages) -> Pruned:
    """Distil the original into the recovered network."""
    asked = run.options.finetune
    assert asked is not None
    options = DistillationOptions()
    if asked.steps is not None:
        options = replace(options, steps=asked.steps)
    if asked.time_limit_s is not None:
        options = replace(options, steps=limits.FINETUNE_STEPS.most, time_limit_s=asked.time_limit_s)
        run.note(
            "--finetune was given a time, so another run may end with other weights; steps repeat exactly"
        )
    limit_s = training_limit_s(run)
    options = replace(options, time_limit_s=min(options.time_limit_s, limit_s))
    with (
        run.stage("finetune"),
        progress.task("fine-tuning by distillation", _units(options)) as advance,
    ):
        finetuned, report = kept_network(
            run, run.journals, "fine-tuned", pruned.bare, planned.plan.removed, DistillationReport,
            lambda: distill(
                prepared.captured.graph_module, pruned.recovered, planned.variant.coupling,
                planned.plan.removed, images,
                generator=torch.Generator().manual_seed(run.options.seed), options=options,
                advance=advance if math.isinf(options.time_limit_s) else _by_second(advance),
                device=prepared.device,
            ),
        )  # fmt: skip
    note_training_cut(run, options.steps, report.steps, asked.time_limit_s, limit_s)
    if report.kept_step == 0:
        run.note("fine-tuning made the network no better on the images kept back for it, so it is as before")
    return replace(pruned, finetuned=finetuned, distillation=report)


def _units(options: DistillationOptions) -> int:
    """Total of the progress display: seconds if the time is limited, else steps."""
    return options.steps if math.isinf(options.time_limit_s) else math.ceil(options.time_limit_s)


def _by_second(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Progress callback that reports elapsed whole seconds."""
    started, shown = time.monotonic(), 0

    def step(_units: int) -> None:
        nonlocal shown
        whole = int(time.monotonic() - started)
        advance(whole - shown)
        shown = whole

    return step


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
