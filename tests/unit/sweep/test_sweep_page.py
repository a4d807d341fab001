"""sweep.html, from which the page of every cell can be reached."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from urllib.parse import unquote

import pytest
from sweep_cells import report_of

from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.reporting.sweep.facts import BestCell, CellState
from edgeprune.reporting.sweep.page import render_page

DONE, FAILED = CellState.DONE, CellState.FAILED


def links_of(page: str) -> dict[str, list[str]]:
    """Addresses by what is shown."""
    found: dict[str, list[str]] = {}
    for address, shown in re.findall(r'<a href="([^"]*)">([^<]*)</a>', page):
        found.setdefault(unescape(shown), []).append(unescape(address))
    return found


def test_cells_that_are_done_lead_to_their_reports_and_others_nowhere() -> None:
    report = report_of({"first": DONE, "second": FAILED, "third": DONE})
    report = replace(
        report, best=(BestCell(target="rpi4", budget="half", quality_kind=AccuracyKind.TOP1, cell="third"),)
    )
    assert links_of(render_page(report)) == {
        "net": ["cells/third/report.html"],
        "first": ["cells/first/report.html"],
        "third": ["cells/third/report.html"],
    }


@pytest.mark.parametrize("name", ['a"b', "50% of it", "a#b?c", "层", "<b>", "javascript:alert(1)"])
def test_an_address_is_that_of_the_folder_whatever_it_is_called(name: str) -> None:
    (addresses,) = links_of(render_page(report_of({name: DONE}))).values()
    assert [unquote(address) for address in addresses] == [f"cells/{name}/report.html"]
    assert all(address.startswith("cells/") and not set(address) & set('#?"<') for address in addresses)
