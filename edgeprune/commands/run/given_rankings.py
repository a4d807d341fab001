"""Rankings given as files of ``edgeprune rank``: read, and checked against model and data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.artifacts.choices import DEFAULT_CRITERION, RankedPlayers
from edgeprune.artifacts.pruning import Ranking, RankingOrigin
from edgeprune.commands.run.fingerprints import images_sha256, network_sha256
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.errors import UsageError
from edgeprune.importance.ranking import cost_law, inclusion_law
from edgeprune.importance.registry import criterion
from edgeprune.options.runs import CompressOptions
from edgeprune.reporting.ranking.facts import CriterionScores, RankingInputs, RankingReport
from edgeprune.reporting.ranking.files import read_ranking

RANKING_FILE = "ranking.json"


@dataclass(frozen=True, kw_only=True)
class GivenRanking:
    """A ranking from a file and the criterion chosen from it."""

    path: Path
    report: RankingReport
    scores: CriterionScores


def inputs_of(prepared: Prepared) -> RankingInputs:
    """Hashes of the inputs of a ranking."""
    return RankingInputs(
        network_sha256=network_sha256(prepared.captured),
        fitting_images_sha256=images_sha256(prepared.calibration.fitting),
    )


def read_given(options: CompressOptions) -> GivenRanking | None:
    """Read the ranking of ``--ranking``, before a model is loaded; ``None`` if none is given.

    Raises:
        UsageError: it does not rank all channels, or lacks the requested criterion.
    """
    path = options.ranking_path
    if path is None:
        if options.criterion is not None:
            criterion(options.criterion)  # fail early on an unknown name
        return None
    report = read_ranking(path / RANKING_FILE if path.is_dir() else path)
    shown = f"the ranking {str(path)!r}"
    if report.settings.players != RankedPlayers.CHANNELS.value:
        raise UsageError(f"{shown} is one of blocks; accepted is one of channels: rank without --players")
    if report.settings.layers:
        raise UsageError(
            f"{shown} has the layers {', '.join(report.settings.layers)} alone; accepted is one of all "
            "layers: rank without --layer"
        )
    _check_whole(report, shown)
    return GivenRanking(path=path, report=report, scores=_chosen(report, options.criterion, shown))


def _check_whole(report: RankingReport, shown: str) -> None:
    """Check that a ranking has exactly one figure of each kind per channel."""
    wanted = [(group.name, len(group.channels)) for group in report.groups]
    for scores in report.criteria:
        counts = [(group.group, len(group.values)) for group in scores.groups]
        lengths = [
            {len(g.values), len(g.removal_costs), len(g.standard_errors or g.values)} for g in scores.groups
        ]
        if counts != wanted or any(len(each) > 1 for each in lengths):
            raise UsageError(
                f"{shown} is damaged: {scores.name} has not one figure for each channel of each group; "
                "rank again"
            )


def _chosen(report: RankingReport, name: str | None, shown: str) -> CriterionScores:
    by_name = {scores.name: scores for scores in report.criteria}
    if not by_name:
        raise UsageError(f"{shown} has no criterion; accepted is one that 'edgeprune rank' wrote")
    if name is None:
        return by_name.get(DEFAULT_CRITERION, report.criteria[0])
    if name not in by_name:
        raise UsageError(
            f"--criterion {name} was given, and {shown} has {', '.join(by_name)}; accepted is one of these, "
            "or rank by that criterion, too"
        )
    return by_name[name]


def fitted(given: GivenRanking, run: Run, prepared: Prepared) -> Ranking:
    """The given ranking for the channels of this network.

    Raises:
        UsageError: it was made from another network, other images or other choices; says which.
    """
    _check_fits(given, run, prepared)
    coupling, scores = prepared.coupling, given.scores
    values, costs, errors = (np.full(coupling.num_players, np.nan) for _ in range(3))
    for group, group_scores in zip(coupling.groups, scores.groups, strict=True):
        players = list(group.players)
        values[players], costs[players] = group_scores.values, group_scores.removal_costs
        if group_scores.standard_errors is not None:
            errors[players] = group_scores.standard_errors
    if not (np.isfinite(values).all() and np.isfinite(costs).all()):
        raise UsageError(
            f"the ranking {str(given.path)!r} has no finite figures of {scores.name} for some channels; "
            "rank again, or choose another with --criterion"
        )
    return Ranking(
        criterion=scores.name,
        values=values,
        removal_costs=costs,
        standard_errors=errors,
        evaluations=scores.evaluations,
        images=scores.images,
        duration_s=0.0,
        choice=scores.choice,
        loss=given.report.loss,
        origin=RankingOrigin(path=str(given.path), criterion=given.scores.name),
    )


def _check_fits(given: GivenRanking, run: Run, prepared: Prepared) -> None:
    """Check that the ranking is of this network and data, most likely mismatch first."""
    report, options, shown = given.report, run.options, f"the ranking {str(given.path)!r}"
    inputs = inputs_of(prepared)
    if report.inputs.network_sha256 != inputs.network_sha256:
        raise UsageError(
            f"{shown} was made of another network or other weights ({report.model.source}); accepted is one "
            "of this model: rank it again"
        )
    if report.calibration.fingerprint_sha256 != prepared.calibration.fingerprint_sha256:
        raise UsageError(
            f"{shown} was made with other calibration data or preprocessing ({report.calibration.source}); "
            "accepted is one made with these: give the same, or rank again"
        )
    if report.inputs.fitting_images_sha256 != inputs.fitting_images_sha256:
        raise UsageError(
            f"{shown} was made from other images of the same data: {_other_images(report, run, prepared)}; "
            "give the same, or rank again"
        )
    coupling = options.coupling
    asked = (coupling.attention.value, coupling.prune_normalized)
    if (report.settings.attention_unit, report.settings.prune_normalized) != asked:
        raise UsageError(
            f"{shown} was made with another choice of players; give --attention-unit and --prune-normalized "
            "as they were there, or rank again"
        )
    groups = [(g.name, len(g.channels)) for g in report.groups]
    if groups != [(g.name, len(g.players)) for g in prepared.coupling.groups]:
        raise UsageError(
            f"{shown} has other groups of channels than this edgeprune finds in the network (it was made "
            f"with edgeprune {report.versions.get('edgeprune', 'unknown')}); rank again"
        )


def _other_images(report: RankingReport, run: Run, prepared: Prepared) -> str:
    """Which options differ, as far as the figures tell."""
    reasons = []
    if report.settings.seed != run.options.seed:
        reasons.append(f"its --seed was {report.settings.seed}, here it is {run.options.seed}")
    there = (report.calibration.fitting_images, report.calibration.held_out_images)
    here = (len(prepared.calibration.fitting), len(prepared.calibration.held_out))
    if there != here:
        reasons.append(
            f"it ranked with {there[0]} images and held out {there[1]}, here they are {here[0]} and "
            f"{here[1]} (--held-out, --max-images, --effort)"
        )
    return "; ".join(reasons) or "--held-out, --max-images or --effort was another"


def differences(given: GivenRanking, prepared: Prepared, ratio: float, *, in_rounds: bool) -> list[str]:
    """Sentences on how a new ranking for a cut of ``ratio`` would differ."""
    notes, shown = [], f"the ranking {str(given.path)!r}"
    made_for = given.report.settings.ratio
    laws_differ = (inclusion_law(made_for), cost_law(made_for)) != (inclusion_law(ratio), cost_law(ratio))
    if given.scores.name == DEFAULT_CRITERION and laws_differ:
        notes.append(
            f"{shown} was made for a cut of {made_for:.0%}, which its coalition sizes follow; for other cuts "
            "'edgeprune rank --ratio' makes one that fits better"
        )
    if in_rounds:
        notes.append(
            f"{shown} was made in one round; for cuts as deep as this one compress ranks anew in between, "
            "which loses less: leave --ranking out for that"
        )
    if prepared.stored_as is not None:
        notes.append(f"{shown} was made with weights in 32 bits, not rounded to 8 as they will be delivered")
    return notes
