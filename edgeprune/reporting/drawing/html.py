"""The drawing as one self-contained HTML page: hovering over or selecting a group shows all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgeprune.reporting.drawing import words
from edgeprune.reporting.drawing.facts import Facts, GroupFacts, NetworkDrawing
from edgeprune.reporting.formatting import format_macs
from edgeprune.reporting.pages import render
from edgeprune.showing import shown

_NAMES_IN_CELL = 6


def page(mark: str, drawing: NetworkDrawing, facts: Facts, head: str, svg: str) -> str:
    """Render the page; it loads nothing from the network, and its policy forbids it."""
    return render(
        "network.html.j2",
        mark=mark,
        drawing=drawing,
        facts=facts,
        head=head,
        svg=svg,
        said=_names(facts.groups),
        group_size=words.group_size,
        macs=format_macs,
        percent=words.percent,
        most_names=_NAMES_IN_CELL,
    )


def _names(groups: Sequence[GroupFacts]) -> str:
    """Bar text of each group as JSON; ``<`` is escaped so that no name ends the script element."""
    said = {
        str(
            g.number
        ): f"group {g.number}: {words.group_size(g)} channels leave {words.listed(g.layers)} together "
        f"and enter {words.listed(g.consumers)}"
        for g in groups
    }
    said = {key: shown(text) for key, text in said.items()}
    return json.dumps(said, ensure_ascii=True).replace("<", "\\u003c")
