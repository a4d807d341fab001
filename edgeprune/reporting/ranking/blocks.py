"""Residual blocks as a table, as bars and as CSV."""

from __future__ import annotations

import csv
import io

from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.intervals import Z_95
from edgeprune.reporting.drawing.words import keep_end
from edgeprune.reporting.formatting import count_words, format_share, significant
from edgeprune.reporting.ranking.facts import BlockRanking, BlockScore, RankingReport, known
from edgeprune.reporting.web.charts import AFTER, INK, headed, row_labels, rows, to_svg
from edgeprune.showing import plain

CSV_COLUMNS = (
    "block",
    "addition",
    "value",
    "standard_error",
    "rank",
    "quality",
    "quality_low",
    "quality_high",
    "loss",
    "loss_standard_error",
)
_ROW = 24
_NAME_LENGTH = 34
_BARS, _WORDS = 420, 190


def quality_words(blocks: BlockRanking) -> str:
    """Column title of the quality without a block."""
    return "loss" if blocks.quality is None else _rated(blocks.quality_kind)


def _rated(kind: AccuracyKind) -> str:
    return "accuracy" if kind is AccuracyKind.TOP1 else "agreement"


def without_words(block: BlockScore) -> str:
    """Quality without the block with its interval, or the loss."""
    if block.quality is None or block.quality_low is None or block.quality_high is None:
        return significant(block.loss)
    return f"{format_share(block.quality)} ({block.quality_low:.1%} to {block.quality_high:.1%})"


def value_words(block: BlockScore) -> str:
    """A value with its standard error."""
    error = known(block.standard_error)
    spread = "" if not error else f" ± {significant(error, 2)}"
    return f"{significant(block.value)}{spread}"


def block_rows(blocks: BlockRanking) -> tuple[tuple[str, ...], ...]:
    """Name, value, rank, quality and loss without it, in graph order."""
    return tuple(
        (b.name, value_words(b), str(b.rank), without_words(b), significant(b.loss)) for b in blocks.blocks
    )


def blocks_to_csv(blocks: BlockRanking) -> str:
    """One row per block in graph order, numbers in full precision; unknown values are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for b in blocks.blocks:
        figures = (
            b.value, b.standard_error, b.rank, b.quality, b.quality_low, b.quality_high, b.loss,
            b.loss_standard_error,
        )  # fmt: skip
        cells = ("" if known(f) is None else repr(f) for f in figures)
        writer.writerow((plain(b.name), plain(b.addition), *cells))
    return stream.getvalue()


def blocks_figure(report: RankingReport, blocks: BlockRanking) -> str:
    """Bars of the values in graph order with 95% intervals, and the quality without each, as ``<svg>``."""
    import altair as alt

    values = [
        {
            "place": place,
            "value": b.value,
            **dict(zip(("low", "high"), _interval(b), strict=True)),
            "without": without_words(b),
            "words": f"{b.name}: {value_words(b)}",
        }
        for place, b in enumerate(blocks.blocks)
    ]
    names = [keep_end(b.name, _NAME_LENGTH) for b in blocks.blocks]
    labels = alt.Axis(
        labelExpr=row_labels(names), labelLimit=260, grid=False, ticks=False, domain=False, title=None
    )
    y = alt.Y("place:O", axis=labels)
    base = alt.Chart(rows(values))
    bars = base.mark_bar(color=AFTER, height=14).encode(
        y, alt.X("value:Q", title="Shapley value"), description="words:N"
    )
    known_ends = alt.Chart(rows([row for row in values if row["low"] != row["high"]]))
    spread = known_ends.mark_rule(color=INK, aria=False).encode(y, alt.X("low:Q"), x2="high:Q")
    height = _ROW * len(names)
    aside = (
        base.mark_text(align="left", fontSize=11)
        .encode(alt.Y("place:O", axis=None), x=alt.value(0), text="without:N")
        .properties(width=_WORDS, height=height, title=alt.TitleParams(f"{quality_words(blocks)} without it"))
    )
    left = alt.layer(bars, spread).properties(width=_BARS, height=height)
    images, whole = count_words(blocks.images, "image"), format_share(blocks.quality or 0.0)
    whole = significant(blocks.loss) if blocks.quality is None else whole
    title = "Value of every residual block"
    told = [
        f"v(S) = minus the loss ({report.loss}), mean of {images}; {blocks.choice}",
        f"whole network: {quality_words(blocks)} {whole} on {blocks.held_out_images} held-out images",
    ]
    heading = headed(title, told, _BARS + _WORDS)
    return to_svg(alt.hconcat(left, aside, title=heading), title, "blocks", hover=True)


def _interval(block: BlockScore) -> tuple[float, float]:
    error = block.standard_error if 0.0 < block.standard_error < float("inf") else 0.0
    return block.value - Z_95 * error, block.value + Z_95 * error
