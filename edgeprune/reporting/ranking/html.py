"""The plots of a ranking on one self-contained page, with short words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeprune.reporting.drawing.words import escape
from edgeprune.reporting.formatting import count_words, format_macs
from edgeprune.reporting.ranking.facts import AbsentChannels, RankingReport
from edgeprune.reporting.ranking.figures import REMOVAL_FILES, values_name
from edgeprune.reporting.ranking.words import (
    areas_table,
    blocks_table,
    blocks_words,
    channels_table,
    criterion_words,
    recovered_table,
)
from edgeprune.reporting.table import Table

_STYLE = """\
:root{color-scheme:light}
body{margin:0 auto;max-width:1180px;padding:0 20px 40px;background:#fff;color:#1f2328;
font:14px/1.5 system-ui,'Segoe UI','DejaVu Sans',sans-serif}
h1{font-size:21px;margin:20px 0 2px;overflow-wrap:anywhere}h2{font-size:17px;margin:30px 0 4px}
p{margin:2px 0 10px;max-width:82ch}.soft{color:#59636e}
figure{margin:10px 0;overflow-x:auto}figure svg{max-width:100%;height:auto}
table{display:block;overflow-x:auto;border-collapse:collapse;margin:6px 0 12px}
th,td{text-align:left;vertical-align:top;padding:3px 18px 3px 0;border-bottom:1px solid #d1d9e0}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
@media (max-width:700px){figure svg{max-width:none}}
code{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}
"""


def render_page(report: RankingReport, figures: Mapping[str, str]) -> str:
    """The page; it asks nothing of the network, and its policy forbids it to. ``figures``: SVG by name."""
    title = escape(f"Ranking of {report.model.source}")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{title}</title>",
            f"<style>{_STYLE}</style></head><body>",
            f'<h1>{title}</h1><p class="soft">{escape(_head(report))}</p>',
            *_body(report, figures),
            *_notes(report.notes),
            "</body></html>\n",
        ]
    )


def _head(report: RankingReport) -> str:
    found = report.calibration
    if report.blocks is not None:
        players = count_words(len(report.blocks.blocks), "residual block")
        kind = "labelled image" if found.labelled else "unlabelled image"
        return (
            f"{players}, {format_macs(report.macs)} an image; {count_words(found.fitting_images, kind)} to "
            f"rank with, {found.held_out_images} held out to judge; seed {report.settings.seed}"
        )
    ranked = sum(len(g.channels) for g in report.groups)
    labelled = "labelled image" if found.labelled else "unlabelled image"
    return (
        f"{ranked:,} of {report.players:,} prunable channels in {count_words(len(report.groups), 'group')}, "
        f"{format_macs(report.macs)} an image; {count_words(found.fitting_images, labelled)} to rank with, "
        f"{found.held_out_images} held out to judge; for a cut of {report.settings.ratio:.0%} of the MACs; "
        f"seed {report.settings.seed}"
    )


def _body(report: RankingReport, figures: Mapping[str, str]) -> list[str]:
    if report.blocks is not None:
        told = (
            "Each block's branch is a player; without it only the shortcut is left. A value is the block's "
            "mean share in what all blocks together gain, over all orders in which they could be added."
        )
        return [
            "<h2>Residual blocks</h2>",
            f"<p>{escape(told)} {escape(blocks_words(report, report.blocks))}.</p>",
            _figure(figures["blocks.svg"]),
            *_table(blocks_table(report.blocks)),
        ]
    return [
        *_removal(report, figures),
        *_sizes(figures["coalition-sizes.svg"]),
        *_values(report, figures),
    ]


def _removal(report: RankingReport, figures: Mapping[str, str]) -> list[str]:
    removal = report.removal
    places = ""
    if removal.reconstructing_points < removal.mask_points:
        places = (
            f" This is so at {removal.reconstructing_points} of {removal.mask_points} places; at the others "
            "absent channels are masked here, too."
        )
    told = {
        AbsentChannels.RECONSTRUCTED: (
            "Filters go one after another, those first that a criterion says cost least per MAC saved; the "
            "last of each group stays. Absent channels are replaced by their best linear estimate from those "
            "present, found on the images to rank with and judged on those held out. That stands for "
            "recovery, which solves every layer anew and mostly keeps more. The higher the accuracy and the "
            f"lower the loss stay, the better.{places}"
        ),
        AbsentChannels.MASKED: (
            "The same orders with absent channels at zero: the pruned networks as they are before recovery."
        ),
    }
    lines = ["<h2>What is lost while filters go</h2>"]
    if removal.recovered:
        lines += _table(recovered_table(report))
    for absent, name in REMOVAL_FILES.items():
        lines += [f"<p>{told[absent]}</p>", _figure(figures[name]), *_table(areas_table(report, absent))]
    return lines


def _sizes(svg: str) -> list[str]:
    told = (
        "What random sets of channels are worth. Where the curve is flat, channels stand in for each other; "
        "where it is steep, every one counts. Wide bands say that it matters which ones are present."
    )
    return ["<h2>Coalition size against value</h2>", f"<p>{escape(told)}</p>", _figure(svg)]


def _values(report: RankingReport, figures: Mapping[str, str]) -> list[str]:
    lines = ["<h2>Values by layer</h2>"]
    for found in report.criteria:
        lines += [
            f"<p><strong>{escape(found.name)}</strong>: {escape(criterion_words(found))}</p>",
            _figure(figures[values_name(found.name)]),
        ]
    return [*lines, *_table(channels_table(report))]


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"


def _table(table: Table) -> list[str]:
    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = (' class="n"' if i in table.numeric_columns else "" for i in range(len(row)))
        return "".join(f"<{tag}{kind}>{escape(c)}</{tag}>" for kind, c in zip(kinds, row, strict=True))

    rows = [f"<tr>{cells('td', row)}</tr>" for row in table.rows]
    caption = f'<p class="soft">{escape(table.title)}</p>'
    remark = [f'<p class="soft">{escape(table.remark)}</p>'] if table.remark else []
    return [caption, f"<table><tr>{cells('th', table.columns)}</tr>", *rows, "</table>", *remark]


def _notes(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    return ["<h2>Notes</h2><ul>", *(f"<li>{escape(n)}</li>" for n in notes), "</ul>"]
