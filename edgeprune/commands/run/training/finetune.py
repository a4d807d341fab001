"""``--finetune``: distil the original into the recovered network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from edgeprune import limits
from edgeprune.artifacts.pruning import DistillationReport
from edgeprune.commands.run.kept_stages import kept_network
from edgeprune.commands.run.state import Planned, Prepared, Pruned, Run, split_for_recovery
from edgeprune.commands.run.time_limits import note_training_cut, training_limit_s
from edgeprune.errors import CalibrationError
from edgeprune.recovery.agreement import in_words
from edgeprune.recovery.distillation.training import DistillationOptions, distill
from edgeprune.recovery.splitting import LEAST_DECIDING
from edgeprune.system import progress


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


def finetune(run: Run, prepared: Prepared, planned: Planned, pruned: Pruned) -> Pruned:
    """Distil the original into the recovered network."""
    asked = run.options.finetune
    assert asked is not None
    images = split_for_recovery(run, prepared)
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
    if report.kept_step == 0 and report.decision is not None:
        run.note(in_words(report.decision))
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
