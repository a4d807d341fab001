"""A pruned network, recovered, and trained as requested."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.commands.run.kept_stages import noted
from edgeprune.commands.run.stages import prune_and_recover, recover_on_all
from edgeprune.commands.run.state import Planned, Prepared, Pruned, Run
from edgeprune.commands.run.training.finetune import finetune
from edgeprune.commands.run.training.recipe import train_with_recipe


def build(run: Run, prepared: Prepared, planned: Planned) -> Pruned:
    """Prune, recover, and train if the options ask for it.

    Raises:
        UsageError: see :func:`train_with_recipe`.
    """
    pruned = prune_and_recover(run, prepared, planned)
    if run.options.finetune is not None:
        pruned = finetune(run, prepared, planned, pruned)
        if pruned.distillation is not None and pruned.distillation.kept_step == 0:
            pruned = recover_on_all(run, prepared, planned, pruned)
    return pruned if run.options.recipe is None else train_with_recipe(run, prepared, planned, pruned)


def build_candidate(run: Run, prepared: Prepared, planned: Planned) -> Pruned:
    """One of several networks: as :func:`build`, but the run has its notes only if it is delivered.

    Raises:
        UsageError: see :func:`build`.
    """
    before = len(run.notes)
    pruned, notes = noted(run, lambda: build(run, prepared, planned))
    del run.notes[before:]
    return replace(pruned, notes=tuple(notes))
