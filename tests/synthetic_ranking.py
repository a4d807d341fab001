"""A report of a ranking with made-up figures."""

from __future__ import annotations

import math

from edgeprune.artifacts.model import ModelSection
from edgeprune.artifacts.quality import (
    AccuracyKind,
    RecoveredNetworks,
    RemovalCurve,
    RemovalCurves,
    RemovalPoint,
    RemovedShare,
    SizeCurve,
    SizePoint,
)
from edgeprune.artifacts.report import CalibrationSection
from edgeprune.reporting.ranking.facts import (
    RANKING_SCHEMA_VERSION,
    CriterionScores,
    GroupScores,
    RankedGroup,
    RankingInputs,
    RankingReport,
    RankSettings,
)


def point(removed: int, quality: float | None, loss: float) -> RemovalPoint:
    return RemovalPoint(
        removed=removed,
        removed_share=removed / 5,
        macs_removed_share=removed / 6,
        quality=quality,
        quality_low=None if quality is None else quality - 0.05,
        quality_high=None if quality is None else quality + 0.05,
        loss=loss,
        loss_standard_error=0.01,
    )


def scores(name: str, *, errors: bool) -> CriterionScores:
    def group(title: str, values: tuple[float, ...], network: tuple[int, ...]) -> GroupScores:
        order = sorted(range(len(values)), key=lambda i: -values[i])
        return GroupScores(
            group=title,
            values=values,
            standard_errors=tuple(0.1 * abs(v) for v in values) if errors else None,
            removal_costs=tuple(v * v for v in values),
            ranks_in_group=tuple(order.index(i) + 1 for i in range(len(values))),
            ranks_in_network=network,
        )

    return CriterionScores(
        name=name,
        summary=f"what {name} <measures>",
        choice="by hand",
        evaluations=7 if errors else 0,
        images=4 if errors else 0,
        notes=(f"a note on {name}",) if errors else (),
        groups=(group("stem & co", (0.1, 1 / 3, 0.2), (5, 2, 4)), group("last", (0.5, 0.3), (1, 3))),
    )


def curve(name: str, quality: tuple[float, ...] | None, loss: tuple[float, ...]) -> RemovalCurve:
    known = quality or (None,) * len(loss)
    points = tuple(point(i, q, x) for i, (q, x) in enumerate(zip(known, loss, strict=True)))
    return RemovalCurve(
        criterion=name,
        quality_auc=None if quality is None else sum(quality) / len(quality),
        quality_auc_standard_error=None if quality is None else 0.02,
        loss_auc=sum(loss) / len(loss),
        loss_auc_standard_error=math.nan,
        points=points,
    )


def made_up(*, rated: bool = True) -> RankingReport:
    sizes = tuple(
        SizePoint(
            present=i,
            share=i / 5,
            coalitions=3,
            mean=i - 5.0,
            standard_deviation=0.4,
            lowest=i - 6.0,
            highest=i - 4.5,
        )
        for i in range(6)
    )
    first, second = ((0.9, 0.8, 0.4, 0.2), (0.9, 0.85, 0.73, 0.2)) if rated else (None, None)
    rougher = ((0.9, 0.7, 0.3, 0.2), (0.9, 0.6, 0.25, 0.2)) if rated else (None, None)
    return RankingReport(
        schema_version=RANKING_SCHEMA_VERSION,
        model=ModelSection(
            source="a<b>.pt", format="state-dict", architecture="nets:x", input_shape=(3, 8, 8), sha256=None
        ),
        calibration=CalibrationSection(
            source="images",
            fingerprint_sha256="00",
            fitting_images=30,
            held_out_images=10,
            labelled=True,
            warnings=(),
        ),
        settings=RankSettings(
            criteria=("l1", "ours"),
            layers=(),
            ratio=0.25,
            max_evaluations=None,
            seed=0,
            attention_unit="head-dimensions",
            prune_normalized=False,
            recover_at=(0.3,),
        ),
        inputs=RankingInputs(network_sha256="ab" * 32, fitting_images_sha256="cd" * 32),
        loss="cross-entropy with the labels",
        macs=1000,
        players=5,
        groups=(
            RankedGroup(
                name="stem & co",
                layers=("stem", "co"),
                consumers=("last",),
                channels=(0, 2, 3),
                macs_of_channel=100,
            ),
            RankedGroup(
                name="last", layers=("last",), consumers=("head",), channels=(0, 1), macs_of_channel=50
            ),
        ),
        criteria=(scores("l1", errors=False), scores("ours", errors=True)),
        coalition_sizes=(
            SizeCurve(scope="network", groups=("stem & co", "last"), players=5, images=8, points=sizes),
        ),
        removal=RemovalCurves(
            quality_kind=AccuracyKind.TOP1 if rated else AccuracyKind.RELATIVE_ERROR,
            axis=RemovedShare.MACS,
            images=10,
            filters=5,
            reconstructing_points=2,
            mask_points=3,
            reconstructed=(
                curve("l1", first, (0.1, 0.5, 1.0, 2.0)),
                curve("ours", second, (0.1, 0.2, 0.4, 2.0)),
            ),
            masked=(
                curve("l1", rougher[0], (0.1, 0.7, 1.5, 2.0)),
                curve("ours", rougher[1], (0.1, 0.9, 1.8, 2.0)),
            ),
            recovered=tuple(
                RecoveredNetworks(criterion=name, points=(point(2, 0.875 if rated else None, loss),))
                for name, loss in (("l1", 0.31), ("ours", 0.234))
            ),
        ),
        versions={"edgeprune": "0"},
        notes=("a note",),
        durations_s={"load": 0.5},
    )
