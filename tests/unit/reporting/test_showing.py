"""Names of others never command the terminal that shows them."""

from __future__ import annotations

import json

import pytest
from rich.panel import Panel
from rich.text import Text

from edgeprune.cli.process import session, streams
from edgeprune.reporting.markdown import escape
from edgeprune.showing import plain, plain_values, shown

ESCAPE = "conv\x1b[31m\x9b2J\x07\u202e\udc80\x7f"
SHOWN = r"conv\x1b[31m\x9b2J\x07\u202e\udc80\x7f"


def test_control_characters_are_spelled_out() -> None:
    assert plain(ESCAPE) == SHOWN
    assert plain("Größe, 日本\tand\na line") == "Größe, 日本\tand\na line"
    assert plain_values({ESCAPE: [ESCAPE, 1.5, None, True]}) == {SHOWN: [SHOWN, 1.5, None, True]}


def test_very_long_words_are_shortened_in_the_middle() -> None:
    found = shown(f"no layer {'a' * 4000}z; it has b")
    assert found.startswith("no layer aaa")
    assert found.endswith("aaz; it has b")
    assert len(found) < 200
    assert shown("a" * 200) == "a" * 200


def test_terminal_markdown_and_json_show_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    streams.say(f"error: no layer {ESCAPE}")
    session.show(Panel(Text(ESCAPE)))
    session.show_json({"layer": ESCAPE})
    printed, said = capsys.readouterr()
    assert said == f"error: no layer {SHOWN}\n"
    assert SHOWN.replace(r"\x07", "") in printed  # rich itself drops the bell
    assert json.loads(printed[printed.index("{") :]) == {"layer": SHOWN}
    assert "\x1b" not in printed
    assert escape("a\x1b]b") == r"a\\x1b\]b"
