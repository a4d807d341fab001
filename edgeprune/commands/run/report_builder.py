"""Gather the artifacts of a run into its report."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata

import numpy as np

from edgeprune.artifacts.arrays import IndexArray
from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph, WeightedLayer, kept_count
from edgeprune.artifacts.model import ModelSection
from edgeprune.artifacts.pruning import ChannelImportance, GroupImportance
from edgeprune.artifacts.report import (
    REPORT_SCHEMA_VERSION,
    CalibrationSection,
    DeploymentSection,
    Environment,
    LayerRow,
    ParityFigure,
    PreprocessingSection,
    PruningSection,
    RankingSection,
    RecoverySection,
    RunReport,
)
from edgeprune.commands.run.exports import channels_removed
from edgeprune.commands.run.state import Judged, Planned, Prepared, Pruned, Run
from edgeprune.system.host import machine_description

_PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy")

_SHOWN_CHANNELS = 32


def package_versions() -> dict[str, str]:
    """Versions of edgeprune and of the packages that decide its results."""
    versions = {}
    for name in ("edgeprune", *_PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def layer_rows(coupling: CouplingGraph, removed: tuple[int, ...]) -> tuple[LayerRow, ...]:
    """Every weighted layer before and after pruning."""
    gone = coupling.removed_mask(removed)
    nothing = np.zeros_like(gone)
    owner = coupling.group_of_player()
    frozen = {f.layer: f for f in coupling.frozen}
    rows = []
    for layer in coupling.layers:
        held = frozen.get(layer.name)
        by = f" by {held.op}" if held is not None and held.op else ""
        rows.append(
            LayerRow(
                layer=layer.name,
                op=layer.op,
                channels_before=int(layer.out_players.size),
                channels_after=kept_count(layer.out_players, gone),
                macs_before=layer.macs(nothing),
                macs_after=layer.macs(gone),
                group=_group_names(coupling, layer, owner),
                frozen_by=None if held is None else f"{held.channels} held{by}: {held.reason}",
            )
        )
    return tuple(rows)


def _group_names(coupling: CouplingGraph, layer: WeightedLayer, owner: IndexArray) -> str | None:
    players = layer.out_players[layer.out_players != NO_PLAYER]
    if not players.size:
        return None
    return " + ".join(coupling.groups[i].name for i in sorted(set(owner[players].tolist())))


def assemble_report(
    run: Run,
    prepared: Prepared,
    planned: Planned,
    pruned: Pruned,
    judged: Judged,
    chain: tuple[ParityFigure, ...],
    deployment: DeploymentSection,
) -> RunReport:
    """The report of a finished run."""
    return RunReport(
        schema_version=REPORT_SCHEMA_VERSION,
        usability=judged.usability,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model_section(prepared),
        calibration=calibration_section(prepared),
        ranking=_ranking(prepared, planned),
        pruning=_pruning(prepared, planned),
        recovery=_recovery(run, pruned),
        accuracy_kind=judged.kind,
        accuracy=judged.figures,
        parity=chain,
        deployment=deployment,
        budget=planned.search,
        stage_times=run.times_of_all_sessions,
        environment=_environment(run),
        notes=tuple(dict.fromkeys(run.notes)),
        sessions=1 if run.sessions is None else run.sessions.number,
        importance=group_importance(planned),
        preprocessing=preprocessing_section(prepared.calibration.preprocessing),
    )


def group_importance(planned: Planned) -> tuple[GroupImportance, ...]:
    """Values of the ranking by group, highest first, and which channels go; of many a part."""
    ranking, coupling = planned.ranking, planned.variant.coupling
    if ranking.values.size != coupling.num_players:
        return ()  # a ranking of the whole network, of which blocks were dropped
    gone = coupling.removed_mask(planned.plan.removed)
    rows = []
    for group in coupling.groups:
        order = sorted(group.players, key=lambda player: (-ranking.values[player], player))
        positions = np.unique(
            np.linspace(1, len(order), min(len(order), _SHOWN_CHANNELS)).round().astype(int)
        )
        shown = []
        for position in positions.tolist():
            player = order[position - 1]
            error = float(ranking.standard_errors[player])
            shown.append(
                ChannelImportance(
                    place=position,
                    value=float(ranking.values[player]),
                    standard_error=error if np.isfinite(error) else None,
                    removed=bool(gone[player]),
                )
            )
        rows.append(
            GroupImportance(
                group=group.name,
                layers=group.layers,
                channels=len(order),
                removed=int(gone[list(group.players)].sum()),
                shown=tuple(shown),
            )
        )
    return tuple(rows)


def model_section(prepared: Prepared) -> ModelSection:
    """The given model."""
    loaded = prepared.loaded
    return ModelSection(
        source=loaded.source,
        format=loaded.format.value,
        architecture=loaded.architecture,
        input_shape=prepared.captured.input_shape,
        inputs=dict(prepared.captured.joins),
        sha256=loaded.sha256,
    )


def calibration_section(prepared: Prepared) -> CalibrationSection:
    """The calibration images of the run."""
    calibration = prepared.calibration
    return CalibrationSection(
        source=calibration.source,
        fingerprint_sha256=calibration.fingerprint_sha256,
        fitting_images=len(calibration.fitting),
        held_out_images=len(calibration.held_out),
        labelled=calibration.labelled,
        warnings=calibration.warnings,
    )


def preprocessing_section(steps: Preprocessing) -> PreprocessingSection:
    """How images became the input; steps that were left out are ``None``."""

    def size(pixels: int | tuple[int, int] | None) -> tuple[int, ...] | None:
        return (pixels,) if isinstance(pixels, int) else pixels

    return PreprocessingSection(
        exif=steps.exif,
        ground=steps.ground.value,
        resize=size(steps.resize),
        letterbox=size(steps.letterbox),
        pad=None if steps.letterbox is None else steps.pad,
        crop=size(steps.crop),
        channel_order=steps.channel_order.value,
        mean=steps.mean,
        std=steps.std,
    )


def _ranking(prepared: Prepared, planned: Planned) -> RankingSection:
    ranking = planned.ranking
    estimate = ranking.estimate
    methods = {ranking.criterion: len(prepared.coupling.groups)}
    if estimate is not None:
        methods = dict(Counter(method.value for method in estimate.group_methods.values()))
    relative = ranking.standard_errors / np.maximum(np.abs(ranking.values), 1e-300)
    known = relative[np.isfinite(relative)]
    return RankingSection(
        players=prepared.coupling.num_players,
        groups=len(prepared.coupling.groups),
        methods=methods,
        criterion=ranking.criterion,
        choice=ranking.choice,
        aggregate=None if estimate is None else estimate.aggregate.value,
        loss=ranking.loss,
        evaluations=ranking.evaluations,
        images=ranking.images,
        q_low=None if estimate is None else estimate.q_low,
        q_high=None if estimate is None else estimate.q_high,
        median_relative_standard_error=float(np.median(known)) if known.size else None,
        rounds=ranking.rounds,
        origin=ranking.origin,
    )


def _pruning(prepared: Prepared, planned: Planned) -> PruningSection:
    plan = planned.plan
    return PruningSection(
        ratio_asked=plan.ratio_asked,
        blocks_dropped=tuple(block.name for block in planned.variant.dropped),
        ratio_asked_by=planned.ratio_asked_by,
        macs_removed_share=plan.macs_removed_share,
        width_quantum=plan.width_quantum,
        players_removed=channels_removed(prepared, planned),
        layers=_all_layers(prepared, planned),
    )


def _all_layers(prepared: Prepared, planned: Planned) -> tuple[LayerRow, ...]:
    """Layers of the given network; those of dropped blocks have no channels left."""
    left = {row.layer: row for row in layer_rows(planned.variant.coupling, planned.plan.removed)}
    return tuple(
        left.get(row.layer, replace(row, channels_after=0, macs_after=0, frozen_by=None))
        for row in layer_rows(prepared.coupling, ())
    )


def _recovery(run: Run, pruned: Pruned) -> RecoverySection:
    steps = pruned.recovery.steps
    return RecoverySection(
        layers_solved=len(steps),
        layers_changed=sum(step.changed for step in steps),
        images=pruned.recovery.images,
        deciding_images=pruned.recovery.deciding_images,
        decision=pruned.recovery.decision,
        distillation=pruned.distillation,
        recipe=run.options.recipe,
        mean_error_before=float(np.mean([s.error_before for s in steps])) if steps else 0.0,
        mean_error_after=float(np.mean([s.error_after for s in steps])) if steps else 0.0,
    )


def _environment(run: Run) -> Environment:
    versions = package_versions()
    return Environment(
        edgeprune=versions.pop("edgeprune"),
        python=sys.version.split()[0],
        packages=versions,
        machine=machine_description(),
        threads=run.threads,
        seed=run.options.seed,
        command=run.options.command,
    )
