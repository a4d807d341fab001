"""Export of a graph to a simplified ONNX file, shared by all stages."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgeprune import exporting
from edgeprune.capture.export import program_of_graph
from edgeprune.capture.joining import with_own_inputs
from edgeprune.commands.run.state import Planned, Prepared, Pruned, Run
from edgeprune.pruning.surgery import own_state, surgery_recipe
from edgeprune.sharing.model_metadata import PlanFacts, image_entries, origin_entries, write_entries

SURGERY_WITH_BLOCKS = "1.3"
"""Schema version of a recipe that names dropped blocks, which older readers must not take for a whole one."""


def exported_path(path: Path, work: Path) -> Path:
    """Where ``write_onnx`` leaves the file before simplification."""
    return work / f"{path.stem}-exported.onnx"


def write_onnx(
    run: Run,
    prepared: Prepared,
    module: GraphModule,
    path: Path,
    work: Path,
    planned: Planned | None = None,
) -> tuple[ExportedProgram, str | None]:
    """Export to ``path`` via the folder ``work``; returns the program and the simplifier's note, if any.

    The file says how an image becomes its input and where it is from; nothing is removed without ``planned``.
    """
    size = run.options.batch_size
    captured = prepared.captured
    shapes = tuple(captured.joins.values()) or captured.input_shapes
    examples = tuple(torch.zeros((size or 2, *shape)) for shape in shapes)
    program = program_of_graph(with_own_inputs(module, captured), examples, dynamic_batch=size is None)
    exporting.export_onnx(program, exported_path(path, work), tuple(captured.joins))
    note = exporting.simplify_onnx(exported_path(path, work), path)
    facts = PlanFacts() if planned is None else _plan_facts(prepared, planned)
    origin = origin_entries(source_sha256=prepared.loaded.sha256, seed=run.options.seed, plan=facts)
    write_entries(path, {**image_entries(prepared.calibration), **origin})
    return program, note


def _plan_facts(prepared: Prepared, planned: Planned) -> PlanFacts:
    return PlanFacts(
        macs_removed_share=round(planned.plan.macs_removed_share, 6),
        channels_removed=channels_removed(prepared, planned),
        blocks_dropped=tuple(block.name for block in planned.variant.dropped),
    )


def channels_removed(prepared: Prepared, planned: Planned) -> int:
    """Channels that the plan removes, those of dropped blocks included."""
    with_blocks = prepared.coupling.num_players - planned.variant.coupling.num_players
    return len(planned.plan.removed) + with_blocks


def write_surgery(prepared: Prepared, planned: Planned, pruned: Pruned, folder: Path) -> None:
    """Write the recipe of a pruning, and the final weights under the user's own names."""
    variant = planned.variant
    recipe = surgery_recipe(variant.coupling, planned.plan.removed, variant.captured)
    if variant.dropped:
        recipe["schema_version"] = SURGERY_WITH_BLOCKS
        recipe["dropped_blocks"] = [block.name for block in variant.dropped]
    before = own_state(prepared.captured, prepared.captured.graph_module.state_dict())
    left_out = before.keys() - own_state(variant.captured, variant.captured.graph_module.state_dict())
    final = own_state(variant.captured, pruned.final.state_dict())
    state = {**prepared.loaded.module.state_dict(), **final}
    state = {name: value for name, value in state.items() if name not in left_out}
    exporting.save_surgery(recipe, state, folder)
