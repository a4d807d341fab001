"""Effect of ``--effort`` on images, passes, rounds and training, and its note."""

from __future__ import annotations

import logging
from dataclasses import replace

from edgeprune.artifacts.choices import Effort, Finetune
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.notes import Fact

_log = logging.getLogger("edgeprune.commands")

QUICK_IMAGES = 128
"""Images to rank and recover with at most."""
_TRAINING_STEPS = 500
_FEWEST_STEPS = 100
_TRAINING_BATCH = 32
_PASSES_OF_STEP = 4
"""Forward passes that a training step costs an image: one of the original, three of the pruned network."""
_TRAINING_WORK_MACS = 5e13
_FEWEST_TRAINING_IMAGES = 32

_RANKING_WORK = {Effort.QUICK: 0.25, Effort.NORMAL: 1.0, Effort.THOROUGH: 4.0}


def ranking_work(run: Run) -> float:
    """Passes of a ranking as a multiple of the default."""
    return _RANKING_WORK[run.options.effort]


def with_effort(run: Run, prepared: Prepared, *, trains: bool) -> Prepared:
    """Set images, rounds and training by the effort of the options; differences are noted.

    ``trains``: whether the command trains networks at all.
    """
    effort = run.options.effort
    if effort is Effort.NORMAL:
        return prepared
    times = _RANKING_WORK[effort]
    said = [f"{'a quarter of' if times < 1 else f'{times:g} times'} the passes of a ranking"]
    if effort is Effort.QUICK:
        prepared = _fewer_images(prepared, said)
        if run.options.rounds:
            run.options = replace(run.options, rounds=False)
            said.append("one round, however deep the cut")
    elif trains and run.options.finetune is None and run.options.recipe is None:
        said.append(_train(run, prepared))
    _log.info("--effort %s", effort.value)
    run.notes.append(Fact(f"--effort {effort.value}: {', '.join(said)}"))
    return prepared


def _fewer_images(prepared: Prepared, said: list[str]) -> Prepared:
    calibration, fitting = prepared.calibration, prepared.calibration.fitting
    if len(fitting) <= QUICK_IMAGES:
        return prepared
    # The images are in random order.
    fewer = fitting.first(QUICK_IMAGES)
    said.append(f"{QUICK_IMAGES} of {len(fitting)} images to rank and recover with")
    return replace(prepared, calibration=replace(calibration, fitting=fewer))


def _train(run: Run, prepared: Prepared) -> str:
    """Enable training with a number of steps suited to the network; returns it as text."""
    if len(prepared.calibration.fitting) < _FEWEST_TRAINING_IMAGES:
        return f"no fine-tuning, which needs {_FEWEST_TRAINING_IMAGES} images to fit"
    of_step = _PASSES_OF_STEP * _TRAINING_BATCH * max(1, prepared.coupling.total_macs())
    steps = max(_FEWEST_STEPS, min(_TRAINING_STEPS, int(_TRAINING_WORK_MACS // of_step)))
    run.options = replace(run.options, finetune=Finetune(steps=steps))
    return f"{steps} steps of fine-tuning"
