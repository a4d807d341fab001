"""Report text of the ranking behind a compression."""

from __future__ import annotations

from edgeprune.artifacts.report import RankingSection
from edgeprune.reporting.formatting import significant


def ranking_rows(ranking: RankingSection) -> tuple[tuple[str, str], ...]:
    """How values and removal costs were estimated, or where they were taken from."""
    effort = f"{ranking.loss} over {ranking.images} images, {ranking.evaluations} evaluations"
    error = ranking.median_relative_standard_error
    certainty = "" if error is None else f", median relative standard error {significant(error, 2)}"
    if ranking.origin is not None:
        taken = f"those of {ranking.origin.criterion} in {ranking.origin.path}"
        return (("ranking values", f"{taken}: {effort}{certainty}"), ("removal costs", taken))
    if ranking.aggregate is None:
        weights_alone = "the weights alone, no images"
        seen = effort if ranking.evaluations else weights_alone
        rows = (f"{ranking.criterion}: {ranking.choice}; {seen}{certainty}", _in_rounds(ranking.rounds))
        return (("ranking values", rows[0]), ("removal costs", f"by {ranking.criterion}{rows[1]}"))
    return (
        (
            "ranking values",
            f"{ranking.aggregate} of {effort}, coalitions from q = {ranking.q_low:g} to "
            f"{ranking.q_high:g}{certainty}",
        ),
        (
            "removal costs",
            "expected squared change of the outputs, to first order, when a group's channels leave one after "
            "the other and the rest is estimated from those that stay" + _in_rounds(ranking.rounds),
        ),
    )


def _in_rounds(rounds: tuple[float, ...]) -> str:
    if not rounds:
        return ""
    shares = " and ".join(f"{share:.0%}" for share in rounds)
    return f"; estimated anew once {shares} of the MACs had gone and the rest was recovered"
