"""The guide's programs run and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

import edgeprune.shapley

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "shapley.md"


def test_the_programs_print_what_their_comments_say(capsys):
    text = GUIDE.read_text()
    names: dict[str, object] = {}
    for program in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(program, str(GUIDE), "exec"), names)
        stated = re.findall(r"print\(.*\)  # (.*)", program)
        printed = capsys.readouterr().out.splitlines()
        assert printed == [line for comment in stated for line in comment.split(", then ")]
        assert stated


def test_every_name_in_the_table_of_estimators_is_public():
    rows = [line for line in GUIDE.read_text().splitlines() if line.startswith("| `")]
    named = {n for row in rows for n in re.findall(r"`(\w+)`", row.split("|")[1])}
    fields = set(edgeprune.shapley.Estimate.__dataclass_fields__)
    assert named - fields <= set(edgeprune.shapley.__all__)
    assert len(named) > 15
