"""The drawing as one self-contained HTML page: hovering or choosing a group shows all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgeprune.reporting.drawing import words
from edgeprune.reporting.drawing.facts import Facts, GroupFacts, NetworkDrawing, ReasonFacts
from edgeprune.reporting.drawing.words import escape
from edgeprune.reporting.formatting import format_macs
from edgeprune.showing import shown

_NAMES_IN_CELL = 6

_STYLE = """\
:root{color-scheme:light dark}
body{margin:0;font:14px/1.45 system-ui,'Segoe UI','DejaVu Sans',sans-serif;color:#1f2328;background:#fff}
header,section{padding:0 24px}
h1{font-size:20px;margin:18px 0 2px}h2{font-size:16px;margin:24px 0 6px}
p{margin:2px 0 8px;color:#59636e}
#bar{position:sticky;top:0;z-index:1;display:flex;gap:10px;align-items:center;min-height:34px;
padding:4px 24px;background:#f6f8fa;border-block:1px solid #d1d9e0}
button{font:inherit;padding:2px 10px;border:1px solid #8b949e;border-radius:6px;background:#fff;color:inherit}
#told{flex:1;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
#view{overflow:auto;max-height:82vh;border-bottom:1px solid #d1d9e0}
#view.fit svg{width:100%;height:auto}
table{border-collapse:collapse;max-width:100%}
th,td{text-align:left;vertical-align:top;padding:3px 12px 3px 0;border-bottom:1px solid #d1d9e0}
td.n,th.n{text-align:right}
code{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;overflow-wrap:anywhere}
.tag{display:inline-block;min-width:26px;padding:0 3px;text-align:center;font-weight:600;color:#111418;
border:0}
.why{color:#111418;background:repeating-linear-gradient(45deg,#d8dde3 0 4px,#b9c0c9 4px 6px)}
button.tag{cursor:pointer;border-radius:0}
tr.on{background:#fff3c4}
.net .part{cursor:pointer}
.net .node,.net .edge{transition:opacity .12s}
.net.chosen .node,.net.chosen .edge{opacity:.16}
.net.chosen .node.on,.net.chosen .node.reads,.net.chosen .edge.on{opacity:1}
.net.chosen .on .card{stroke:#0550ae;stroke-width:3}
.net.chosen .reads:not(.on) .card{stroke:#0550ae;stroke-width:2;stroke-dasharray:5 3}
.net.chosen .edge.on{stroke:#0550ae;stroke-width:2.2}
@media (prefers-color-scheme:dark){
body{color:#e6edf3;background:#0d1117}p{color:#9aa4af}
#bar{background:#161b22;border-color:#3d444d}#view,th,td{border-color:#3d444d}
button{background:#21262d}
tr.on{background:#3b3110}
.net.chosen .on .card,.net.chosen .reads:not(.on) .card,.net.chosen .edge.on{stroke:#79c0ff}
}
"""

_SCRIPT = """\
'use strict';
(() => {
  const net = document.querySelector('svg.net');
  const told = document.getElementById('told');
  const rest = told.textContent;
  const names = JSON.parse(document.getElementById('names').textContent);
  const has = (element, list, group) => (element.dataset[list] || '').split(' ').includes(group);
  let pinned = '';
  function show(group) {
    net.classList.toggle('chosen', group !== '');
    for (const element of net.querySelectorAll('[data-groups]')) {
      element.classList.toggle('on', group !== '' && has(element, 'groups', group));
      element.classList.toggle('reads', group !== '' && has(element, 'reads', group));
    }
    for (const row of document.querySelectorAll('tr[data-group]'))
      row.classList.toggle('on', row.dataset.group === group);
    told.textContent = group === '' ? rest : names[group];
  }
  const groupAt = event => {
    const found = event.target.closest('[data-group]');
    return found ? found.dataset.group : '';
  };
  for (const area of [net, document.getElementById('groups')]) {
    if (!area) continue;
    area.addEventListener('pointerover', event => { if (!pinned) show(groupAt(event)); });
    area.addEventListener('pointerleave', () => show(pinned));
    area.addEventListener('focusin', event => { if (!pinned) show(groupAt(event)); });
    area.addEventListener('click', event => {
      const group = groupAt(event);
      pinned = group === pinned ? '' : group;
      show(pinned);
    });
  }
  document.addEventListener('keydown', event => {
    if (event.key === 'Escape') { pinned = ''; show(''); }
  });
  const view = document.getElementById('view'), size = document.getElementById('size');
  size.addEventListener('click', () => {
    size.textContent = view.classList.toggle('fit') ? 'Actual size' : 'Fit to window';
  });
})();
"""


def page(mark: str, drawing: NetworkDrawing, facts: Facts, head: str, svg: str) -> str:
    """The page; it asks nothing of the network, and its policy forbids it to."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    title = escape(drawing.source)
    rest = "Point at a coloured strip or at a row below; click to keep it, Esc to let go."
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f"<!-- {mark} -->",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{title}: coupled groups</title>",
            f"<style>{_STYLE}</style></head><body>",
            f"<header><h1>{title}</h1><p>{escape(head)}</p></header>",
            f'<div id="bar"><button id="size">Fit to window</button><span id="told">{rest}</span></div>',
            f'<div id="view">{svg}</div>',
            *_reasons(facts.reasons),
            *_groups(facts),
            *_notes(drawing.notes),
            f'<script type="application/json" id="names">{_names(facts.groups)}</script>',
            f"<script>{_SCRIPT}</script>",
            "</body></html>\n",
        ]
    )


def _names(groups: Sequence[GroupFacts]) -> str:
    """What the bar says of each group; ``<`` is escaped so that no name ends the script element."""
    said = {
        str(
            g.number
        ): f"group {g.number}: {words.group_size(g)} channels leave {words.listed(g.layers)} together "
        f"and enter {words.listed(g.consumers)}"
        for g in groups
    }
    said = {key: shown(text) for key, text in said.items()}
    return json.dumps(said, ensure_ascii=True).replace("<", "\\u003c")


def _reasons(reasons: Sequence[ReasonFacts]) -> list[str]:
    if not reasons:
        return []
    rows = [
        f'<tr><td><span class="tag why">{r.letter}</span></td><td>{escape(r.op or "-")}</td>'
        f'<td>{escape(r.reason)}</td><td class="n">{r.channels}</td><td>{_list(r.layers)}</td></tr>'
        for r in reasons
    ]
    head = '<tr><th></th><th>held by</th><th>because</th><th class="n">channels</th><th>of layers</th></tr>'
    return ["<section><h2>What stays, and why</h2><table>", head, *rows, "</table></section>"]


def _groups(facts: Facts) -> list[str]:
    if not facts.groups:
        return ["<section><h2>Coupled groups</h2><p>No channel of this network can go.</p></section>"]
    rows = [
        f'<tr data-group="{g.number}"><td>'
        f'<button class="tag" style="background:{g.colour}">{g.number}</button></td>'
        f'<td class="n">{words.group_size(g)}</td><td class="n">{format_macs(g.macs)}</td>'
        f'<td class="n">{words.percent(g.macs, facts.macs)}</td><td>{_list(g.layers)}</td>'
        f"<td>{_list(g.consumers)}</td></tr>"
        for g in facts.groups
    ]
    head = (
        '<tr><th>group</th><th class="n">channels</th><th class="n" colspan="2">MACs that go with all of them'
        "</th><th>leave together from</th><th>enter</th></tr>"
    )
    told = (
        "<p>Groups share layers, so their MACs overlap and do not add up. 12 x 64 channels are twelve that "
        "go one by one, each with 64 channels of a layer; 1-64 where that differs from layer to layer.</p>"
    )
    return [f'<section id="groups"><h2>Coupled groups</h2>{told}<table>', head, *rows, "</table></section>"]


def _notes(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    return ["<section><h2>Notes</h2><ul>", *(f"<li>{escape(n)}</li>" for n in notes), "</ul></section>"]


def _list(names: Sequence[str]) -> str:
    marked = [f"<code>{escape(name)}</code>" for name in names]
    if len(marked) <= _NAMES_IN_CELL:
        return ", ".join(marked)
    first, more = marked[: _NAMES_IN_CELL - 1], marked[_NAMES_IN_CELL - 1 :]
    return f"{', '.join(first)} <details><summary>and {len(more)} more</summary>{', '.join(more)}</details>"
