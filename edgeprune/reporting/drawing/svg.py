"""The drawing as SVG: boxes with coloured strips, arrows, key and tables. No script, no outside resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeprune.reporting.drawing import words
from edgeprune.reporting.drawing.facts import Facts, FlowStep, LayerFacts, NetworkDrawing, Share, StepKind
from edgeprune.reporting.drawing.layout import Layout, PlacedBox, arrange, number
from edgeprune.reporting.drawing.ranks import Box
from edgeprune.reporting.drawing.words import escape

LAYER_WIDTH = 212.0
_LAYER_HEIGHT = 54.0
_EXTRA_LINE = 12.0
_NAME_LENGTH = 30
_OP_LENGTH = 9
_ENTER_HEIGHT = 5.0
_STRIP_HEIGHT = 15.0
_SMALL_HEIGHT = 22.0
_CHARACTER = 6.1
_LEAST_SEGMENT = 3.0

Names = Mapping[str, Sequence[str]]
"""Lines of every layer's name in its box."""

STYLE = """\
.net text{font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;font-size:10px;fill:#1f2328}
.net .name{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:11px}
.net .title{font-size:16px;font-weight:600}
.net .head{font-size:12px;font-weight:600}
.net .soft{fill:#59636e}
.net .paper{fill:#ffffff}
.net .card{fill:#f6f8fa;stroke:#8b949e;stroke-width:1}
.net .end{fill:#e7ebef;stroke:#8b949e;stroke-width:1}
.net .edge{fill:none;stroke:#7d8590;stroke-width:1.3}
.net .stay{fill:url(#stays)}
.net .plain{fill:#c4cad1}
.net .hatch{fill:#d8dde3}
.net .hatch-line{stroke:#99a2ad;stroke-width:2}
.net .seg{stroke:#ffffff;stroke-width:.6}
.net .num{text-anchor:middle;font-weight:600;fill:#111418;stroke:none}
.net .middle{text-anchor:middle}
.net .right{text-anchor:end}
@media (prefers-color-scheme:dark){
.net text{fill:#e6edf3}
.net .soft{fill:#9aa4af}
.net .paper{fill:#0d1117}
.net .card{fill:#1b2129;stroke:#6e7781}
.net .end{fill:#2d343d;stroke:#6e7781}
.net .edge{stroke:#8b949e}
.net .plain{fill:#565f69}
.net .hatch{fill:#3a424c}
.net .hatch-line{stroke:#6b7580}
.net .seg{stroke:#0d1117}
.net .num{fill:#111418}
.net .stay-text{fill:#f0f3f6}
}
"""
_HATCH = (
    '<defs><pattern id="stays" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="hatch" width="6" height="6"/>'
    '<line class="hatch-line" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>'
)


def draw_network(drawing: NetworkDrawing, facts: Facts) -> tuple[list[str], float, float]:
    """Elements of the network with origin (0, 0), with width and height in pixels."""
    names = words.short_names({node: layer.name for node, layer in facts.layers.items()}, _NAME_LENGTH)
    sizes = [_box(step, facts, names) for step in drawing.flow]
    edges = [(source, step.name) for step in drawing.flow for source in step.fed_by]
    layout = arrange(sizes, edges)
    lines = [_edge(layout, edge, facts) for edge in edges]
    for step in drawing.flow:
        lines += _step(step, layout.boxes[step.name], facts, names)
    return lines, layout.width, layout.height


def frame(lines: Sequence[str], width: float, height: float, label: str) -> str:
    """A whole ``<svg>`` element."""
    size = f'width="{number(width)}" height="{number(height)}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="net" role="img" aria-label="{escape(label)}" {size} '
        f'viewBox="0 0 {number(width)} {number(height)}">'
    )
    background = f'<rect class="paper" {size}/>'
    return "\n".join([head, f"<style>{STYLE}</style>", _HATCH, background, *lines, "</svg>"])


def shifted(lines: Sequence[str], x: float, y: float) -> list[str]:
    """Elements translated by (x, y)."""
    return [f'<g transform="translate({number(x)} {number(y)})">', *lines, "</g>"]


def text(x: float, y: float, content: str, classes: str = "") -> str:
    """One line of text; ``y`` is its baseline."""
    named = f' class="{classes}"' if classes else ""
    return f'<text x="{number(x)}" y="{number(y)}"{named}>{escape(content)}</text>'


def swatch(x: float, y: float, width: float, colour: str, label: str) -> str:
    """Rectangle in a group's colour with its number."""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(_STRIP_HEIGHT)}" '
        f'fill="{colour}"/>{text(x + width / 2, y + 11.5, label, "num")}'
    )


def stay_swatch(x: float, y: float, width: float, label: str) -> str:
    """Hatched rectangle of channels that stay, with the letter of their reason."""
    return (
        f'<rect class="stay" x="{number(x)}" y="{number(y)}" width="{number(width)}" '
        f'height="{number(_STRIP_HEIGHT)}"/>{text(x + width / 2, y + 11.5, label, "num stay-text")}'
    )


def _box(step: FlowStep, facts: Facts, names: Names) -> Box:
    if step.kind is StepKind.LAYER:
        layer = facts.layers[step.name]
        extra = bool(_unwritten(layer)) + len(names[step.name]) - 1
        return Box(name=step.name, width=LAYER_WIDTH, height=_LAYER_HEIGHT + _EXTRA_LINE * extra)
    label = _small_label(step)
    return Box(name=step.name, width=max(44.0, 16.0 + _CHARACTER * len(label)), height=_SMALL_HEIGHT)


def _small_label(step: FlowStep) -> str:
    if step.kind is StepKind.INPUT:
        return words.keep_start(f"input {step.label}", 24)
    known = {"scaled_dot_product_attention": "attention"}
    return words.keep_start(known.get(step.label, step.label), 24)


def _groups(parts: Sequence[Share]) -> str:
    return " ".join(str(p.group) for p in parts if p.group is not None)


def _edge(layout: Layout, edge: tuple[str, str], facts: Facts) -> str:
    source, target = (facts.layers.get(name) for name in edge)
    carried = source.leaving if source is not None else facts.carried.get(edge[0], ())
    if target is not None:
        read = {share.group for share in target.entering}
        carried = tuple(share for share in carried if share.group in read)
    return f'<path class="edge" data-groups="{_groups(carried)}" d="{layout.paths[edge]}"/>'


def _step(step: FlowStep, place: PlacedBox, facts: Facts, names: Names) -> list[str]:
    if step.kind is StepKind.LAYER:
        return _layer(facts.layers[step.name], place, facts, names[step.name])
    middle = place.x + place.width / 2
    carried = facts.carried.get(step.name, ())
    meeting = "branches meet here; channel by channel they leave together or not at all"
    meaning = {
        StepKind.INPUT: "input of the network",
        StepKind.OUTPUT: "output of the network: its channels stay",
        StepKind.JOIN: f"{step.label}: {'branches meet here' if step.label == 'cat' else meeting}",
    }
    return [
        f'<g class="node" data-groups="{_groups(carried)}"><title>{escape(meaning[step.kind])}</title>',
        f'<rect class="{"card" if step.kind is StepKind.JOIN else "end"}" x="{number(place.x)}" '
        f'y="{number(place.y)}" width="{number(place.width)}" height="{number(place.height)}" rx="9"/>',
        text(middle, place.y + 13.0, _small_label(step), "middle"),
        *_thin(carried, place.x + 8, place.y + place.height - 6, place.width - 16, facts),
        "</g>",
    ]


def _layer(layer: LayerFacts, place: PlacedBox, facts: Facts, name: Sequence[str]) -> list[str]:
    x, y, width = place.x, place.y, place.width
    share = words.percent(layer.macs, facts.macs)
    op = words.keep_start(layer.op, _OP_LENGTH)
    below = y + _EXTRA_LINE * (len(name) - 1)
    lines = [
        f'<g class="node layer" data-groups="{_groups(layer.leaving)}" '
        f'data-reads="{_groups(layer.entering)}"><title>{escape(words.layer_words(layer, facts))}</title>',
        f'<rect class="card" x="{number(x)}" y="{number(y)}" width="{number(width)}" '
        f'height="{number(place.height)}"/>',
        *_thin(layer.entering, x, y, width, facts),
        *(text(x + 6, y + 18 + _EXTRA_LINE * i, line, "name") for i, line in enumerate(name)),
        text(x + 6, below + 32, f"{op} · {words.channels(layer)}", "soft"),
        text(x + width - 6, below + 32, share, "soft right"),
    ]
    unwritten = _unwritten(layer)
    if unwritten:
        listed = words.keep_start(f"groups {words.numbers(unwritten)}", 34)
        lines.append(text(x + 6, below + 44, listed, "soft"))
    return [*lines, *_strip(layer, x, y + place.height - _STRIP_HEIGHT, facts), "</g>"]


def _thin(parts: Sequence[Share], x: float, y: float, width: float, facts: Facts) -> list[str]:
    """Narrow strip of the channels that enter a layer or leave a join."""
    lines = []
    for share, (start, size) in zip(parts, _spans(parts, width), strict=True):
        fill = 'class="plain"' if share.group is None else f'fill="{facts.groups[share.group - 1].colour}"'
        tooltip = f"<title>{escape(words.passing_words(share, facts))}</title>"
        lines.append(
            f'<rect {fill} x="{number(x + start)}" y="{number(y)}" width="{number(size)}" '
            f'height="{number(_ENTER_HEIGHT)}">{tooltip}</rect>'
        )
    return lines


def _strip(layer: LayerFacts, x: float, y: float, facts: Facts) -> list[str]:
    """Strip of the output channels: one segment a group, hatched where they stay."""
    lines = []
    for share, (start, size) in zip(layer.leaving, _spans(layer.leaving, LAYER_WIDTH), strict=True):
        label = _segment_label(share, layer, size)
        tooltip = f"<title>{escape(words.leaving_words(share, layer, facts))}</title>"
        group = "" if share.group is None else str(share.group)
        fill = 'class="seg stay"'
        if share.group is not None:
            fill = f'class="seg" fill="{facts.groups[share.group - 1].colour}"'
        written = "num" if share.group is not None else "num stay-text"
        lines.append(
            f'<g class="part" data-group="{group}">{tooltip}<rect {fill} x="{number(x + start)}" '
            f'y="{number(y)}" width="{number(size)}" height="{number(_STRIP_HEIGHT)}"/>'
            f"{text(x + start + size / 2, y + 11.5, label, written) if label else ''}</g>"
        )
    return lines


def _segment_label(share: Share, layer: LayerFacts, size: float) -> str:
    """Longest label that fits in a segment."""
    if share.group is not None:
        choices = [f"group {share.group}", str(share.group)] if size > LAYER_WIDTH / 3 else [str(share.group)]
    else:
        letter = layer.reason.letter if layer.reason is not None else ""
        choices = [f"stay: {letter}", letter]
    return next((c for c in choices if len(c) * (_CHARACTER + 0.7) + 2 <= size), "")


def _unwritten(layer: LayerFacts) -> list[int]:
    """All groups of a layer if any segment lacks room for its label, else none."""
    spans = _spans(layer.leaving, LAYER_WIDTH)
    fits = [_segment_label(s, layer, size) for s, (_, size) in zip(layer.leaving, spans, strict=True)]
    return [] if all(fits) else [s.group for s in layer.leaving if s.group is not None]


def _spans(parts: Sequence[Share], width: float) -> list[tuple[float, float]]:
    """Start and size of every segment: in proportion, but none too small to see."""
    total = sum(p.channels for p in parts)
    least = min(_LEAST_SEGMENT, width / len(parts)) if parts else 0.0
    free = width - least * len(parts)
    spans = []
    start = 0.0
    for part in parts:
        size = least + free * part.channels / total
        spans.append((start, size))
        start += size
    return spans
