"""Residual blocks as a table, as bars and as CSV."""

from __future__ import annotations

import csv
import io

from edgeprune.artifacts.report import AccuracyKind
from edgeprune.intervals import Z_95
from edgeprune.reporting.drawing.layout import number
from edgeprune.reporting.drawing.words import escape, keep_end
from edgeprune.reporting.formatting import count_words, format_share, significant
from edgeprune.reporting.plots.svg import STYLE, line_style
from edgeprune.reporting.plots.ticks import nice_ticks, tick_labels
from edgeprune.reporting.ranking.facts import BlockRanking, BlockScore, RankingReport, known
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
_ROW = 24.0
_TOP = 76.0
_PADDING = 18.0
_NAME_LENGTH = 34
_BARS = 420.0
_WORDS = 190.0
_GAP = 24.0


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
    names = [keep_end(b.name, _NAME_LENGTH) for b in blocks.blocks]
    left = _PADDING + 12.0 + 6.2 * max(len(name) for name in names)
    height = _TOP + _ROW * len(names) + 46.0
    title = "Value of every residual block"
    images = count_words(blocks.images, "image")
    subtitle = f"v(S) = minus the loss ({report.loss}), mean of {images}; {blocks.choice}"
    width = max(left + _BARS + _WORDS + 2 * _PADDING, 2 * _PADDING + 5.8 * len(subtitle))
    scale, aside = _Scale(blocks, left), left + _BARS + _GAP
    lines = [
        f'<text x="{number(_PADDING)}" y="24" class="title">{escape(title)}</text>',
        f'<text x="{number(_PADDING)}" y="41" class="soft">{escape(subtitle)}</text>',
        f'<text x="{number(left)}" y="66" class="head">Shapley value</text>',
        f'<text x="{number(aside)}" y="66" class="head">{quality_words(blocks)} without it</text>',
        *scale.grid(_TOP, _TOP + _ROW * len(names)),
    ]
    for index, (name, block) in enumerate(zip(names, blocks.blocks, strict=True)):
        lines += _bar(scale, name, block, _TOP + _ROW * index, left)
    whole = significant(blocks.loss) if blocks.quality is None else format_share(blocks.quality)
    told = f"whole network: {quality_words(blocks)} {whole} on {blocks.held_out_images} held-out images"
    lines.append(f'<text x="{number(_PADDING)}" y="{number(height - 8)}" class="soft">{told}</text>')
    size = f'width="{number(width)}" height="{number(height)}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" aria-label="{escape(title)}" '
        f'{size} viewBox="0 0 {number(width)} {number(height)}">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", f'<rect class="paper" {size}/>', *lines, "</svg>\n"])


class _Scale:
    """Horizontal axis of the values, 0 included."""

    def __init__(self, blocks: BlockRanking, left: float) -> None:
        ends = [0.0, *(v for b in blocks.blocks for v in _interval(b))]
        self.ticks = nice_ticks(min(ends), max(ends))
        self._left = left

    def x(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return self._left + (value - low) / (high - low) * _BARS

    def grid(self, top: float, bottom: float) -> list[str]:
        """Vertical grid lines with their labels below."""
        labels, power = tick_labels(self.ticks, percent=False)
        lines = []
        for tick, label in zip(self.ticks, labels, strict=True):
            x, kind = number(self.x(tick)), "axis" if tick == 0 else "grid"
            lines.append(f'<path class="{kind}" d="M{x} {number(top)}V{number(bottom)}"/>')
            lines.append(f'<text class="middle" x="{x}" y="{number(bottom + 14)}">{escape(label)}</text>')
        if power:
            end = number(self._left + _BARS + _GAP)
            lines.append(f'<text class="soft" x="{end}" y="{number(bottom + 14)}">{escape(power)}</text>')
        return lines


def _interval(block: BlockScore) -> tuple[float, float]:
    error = block.standard_error if 0.0 < block.standard_error < float("inf") else 0.0
    return block.value - Z_95 * error, block.value + Z_95 * error


def _bar(scale: _Scale, name: str, block: BlockScore, top: float, left: float) -> list[str]:
    style, middle = line_style(0), top + _ROW / 2
    start, end = sorted((scale.x(0.0), scale.x(block.value)))
    low, high = _interval(block)
    lines = [
        f'<text class="right" x="{number(left - 8)}" y="{number(middle + 3.5)}">{escape(name)}</text>',
        f"<g><title>{escape(block.name)}: {escape(value_words(block))}</title>"
        f'<rect fill="{style.colour}" x="{number(start)}" y="{number(top + 4)}" '
        f'width="{number(max(0.5, end - start))}" height="{number(_ROW - 8)}"/></g>',
        f'<text x="{number(left + _BARS + _GAP)}" y="{number(middle + 3.5)}">'
        f"{escape(without_words(block))}</text>",
    ]
    if high > low:
        a, b, y = number(scale.x(low)), number(scale.x(high)), number(middle)
        lines.append(f'<path class="bar" stroke="#1f2328" d="M{a} {y}H{b}"/>')
    return lines
