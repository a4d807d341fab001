"""Images and coalitions for games of blocks, and blocks without class scores in words and pictures."""

from __future__ import annotations

import dataclasses
import io
import re
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from synthetic_ranking import made_up

from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.commands.rank.ranked_blocks import block_effort
from edgeprune.errors import UsageError
from edgeprune.options.quantities import parse_bytes
from edgeprune.reporting.ranking.blocks import blocks_figure, blocks_to_csv
from edgeprune.reporting.ranking.facts import BlockRanking, BlockScore
from edgeprune.reporting.ranking.files import figure_files
from edgeprune.reporting.ranking.html import render_page
from edgeprune.reporting.ranking.words import render_ranking


def prepared(images: int, macs: int) -> Any:
    return SimpleNamespace(
        calibration=SimpleNamespace(fitting=range(images)),
        coupling=SimpleNamespace(total_macs=lambda: macs),
    )


@pytest.mark.parametrize(
    ("blocks", "macs", "limit", "expected"),
    [
        (9, 1, None, (1000, 512)),
        (9, 40_000_000, None, (384, 512)),
        (14, 10**9, None, (32, 2**14)),
        (15, 1, None, (1000, 300)),
        (4, 1, 16, (128, 16)),
        (4, 1, 6, (128, 6)),
        (4, 1, 16 * 8, (1000, 16)),
        (4, 1, 10**6, (1000, 16)),
        (15, 1, 17, (128, 17)),
        (15, 1, 2400, (1000, 300)),
    ],
)
def test_all_coalitions_up_to_14_blocks_on_what_is_affordable(
    blocks: int, macs: int, limit: int | None, expected: tuple[int, int]
) -> None:
    assert block_effort(blocks, prepared(1000, macs), limit) == expected


@pytest.mark.parametrize(("blocks", "least"), [(1, 2), (2, 4), (5, 7), (20, 22)])
def test_fewer_than_leave_one_out_is_refused(blocks: int, least: int) -> None:
    block_effort(blocks, prepared(10, 1), least)
    with pytest.raises(UsageError, match=rf"--max-evaluations {least - 1} is too few: .* at least {least}"):
        block_effort(blocks, prepared(10, 1), least - 1)


def ranking(*, rated: bool) -> BlockRanking:
    def block(place: int, value: float, error: float) -> BlockScore:
        return BlockScore(
            name=f"layer<{place}>",
            addition=f"add_{place}",
            value=value,
            standard_error=error,
            rank=2 - place,
            quality=0.7 if rated else None,
            quality_low=0.6 if rated else None,
            quality_high=0.8 if rated else None,
            loss=1.5,
            loss_standard_error=0.1,
        )

    return BlockRanking(
        choice="by hand",
        evaluations=9,
        images=4,
        empty_value=-2.0,
        whole_value=-0.5,
        quality_kind=AccuracyKind.AGREEMENT if rated else AccuracyKind.RELATIVE_ERROR,
        held_out_images=10,
        quality=1.0 if rated else None,
        loss=0.5,
        blocks=(block(0, -0.25, 0.0), block(1, 1.75, float("inf")), block(2, 0.0, 0.5)),
    )


@pytest.mark.parametrize("rated", [True, False])
def test_blocks_are_drawn_and_told(rated: bool) -> None:
    found = ranking(rated=rated)
    report = dataclasses.replace(made_up(), blocks=found)
    svg = blocks_figure(report, found)
    ElementTree.fromstring(svg)
    assert "nan" not in svg
    assert "inf" not in re.sub('inf(?=</title>|")', "", svg)
    intervals = re.findall('<g class="mark-rule role-mark[^>]*>(.*?)</g>', svg)
    assert sum(drawn.count("<line") for drawn in intervals) == 1, "where an error is known and finite"
    figures = figure_files(report)
    assert list(figures) == ["blocks.svg"]
    page = render_page(report, figures)
    assert svg in page
    assert "layer<0>" not in page
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render_ranking(report))
    text = console.export_text()
    assert ("agreement without it" in text) == rated
    assert "loss without it" in text
    assert "70.0% (60.0% to 80.0%)" in text or not rated
    header, first, *_ = blocks_to_csv(found).splitlines()
    assert header.startswith("block,addition,value,standard_error,rank,quality")
    assert first == ("layer<0>,add_0,-0.25,0.0,2," + ("0.7,0.6,0.8" if rated else ",,") + ",1.5,0.1")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("500 MB", 5 * 10**8),
        ("1.5kB", 1500),
        ("1KiB", 1024),
        ("1mib", 2**20),
        ("2 GiB", 2**31),
        ("10B", 10),
    ],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_bytes(text, option="--memory-limit") == size


@pytest.mark.parametrize(
    "text", ["", "2", "GB", "2 TBs", "two GB", "-1GB", "0.0001B", "1e3MB", "٣GB", "1GB2", "9" * 400 + "GB"]
)
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="accepted is a number with a unit, such as 2GB"):
        parse_bytes(text, option="--memory-limit")
