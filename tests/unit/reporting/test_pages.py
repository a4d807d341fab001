"""Pages from templates: texts of others are escaped everywhere, and nothing is left out in silence."""

from __future__ import annotations

import re

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.reporting.pages import render
from edgeprune.reporting.table import Table

HOSTILE = '</style></script><img src="//x" onerror="alert(1)">&\'\x1b[31m\u202e\x00'


def ranking(text: str) -> str:
    """The page of a ranking with ``text`` wherever a text can be."""
    table = Table(title=text, columns=(text, "n"), rows=((text, "1"),), remark=text, numeric_columns=(1,))
    part = {"name": text, "words": text, "svg": "<svg></svg>", "table": table}
    sections = [{"title": text, "parts": [part]}]
    return render("ranking.html.j2", title=text, head=text, sections=sections, remarks=(text,))


def tags(page: str) -> list[str]:
    return re.findall(r"<[^>]*>", page)


@given(st.text(min_size=1) | st.just(HOSTILE))
def test_no_text_becomes_markup_or_a_control_character(text: str) -> None:
    page = ranking(text)
    assert tags(page) == tags(ranking("x"))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_numbers_are_set_apart_and_figures_are_taken_as_they_are() -> None:
    page = ranking("x")
    assert '<td>x</td><td class="n">1</td>' in page
    assert "<figure><svg></svg></figure>" in page
    assert page.startswith("<!DOCTYPE html>\n")
    assert page.endswith("</html>\n")


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="sections"):
        render("ranking.html.j2", title="x", head="x", remarks=())
