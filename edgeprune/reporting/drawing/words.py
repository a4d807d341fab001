"""Text for drawings: escaping, shortening, and the sentences that a tooltip or a table shows."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from edgeprune.reporting.drawing.facts import Facts, GroupFacts, LayerFacts, Share
from edgeprune.reporting.formatting import format_macs
from edgeprune.showing import first_few, shown

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAMES_IN_TOOLTIP = 12


def escape(text: str) -> str:
    """Escape text for display in XML and HTML, attribute values included."""
    return html.escape(visible(text))


def visible(text: str) -> str:
    """Displayable text for XML and HTML, markup not escaped yet."""
    return _NOT_XML.sub("\ufffd", shown(text))


def keep_end(text: str, length: int) -> str:
    """Shorten a layer's path at the front, where it is least specific."""
    return text if len(text) <= length else "…" + text[len(text) - length + 1 :]


def short_names(names: Mapping[str, str], length: int) -> dict[str, tuple[str, ...]]:
    """Layer names by key in lines of ``length``: one, or two if the ends alone are ambiguous."""
    taken = Counter(keep_end(name, length) for name in names.values())
    lines: dict[str, tuple[str, ...]] = {}
    for key, name in names.items():
        end = keep_end(name, length)
        if end == name or taken[end] == 1:
            lines[key] = (end,)
            continue
        cut = name.find(".", len(name) - length - 1) + 1 or len(name) - length
        lines[key] = (keep_end(name[:cut], length), name[cut:])
    return lines


def keep_start(text: str, length: int) -> str:
    """Shorten a text at its end."""
    return text if len(text) <= length else text[: length - 1] + "…"


def listed(names: Sequence[str], limit: int = _NAMES_IN_TOOLTIP) -> str:
    """Comma-separated names, at most ``limit``."""
    return first_few(names, limit)


def listed_within(names: Sequence[str], length: int) -> str:
    """As many names as fit into one line, but at least one, shortened at the front."""
    choices = (listed(names, limit) for limit in range(len(names), 0, -1))
    fallback = f" and {len(names) - 1} more" if len(names) > 1 else ""
    one = keep_end(names[0], max(8, length - len(fallback))) + fallback
    return next((c for c in choices if len(c) <= length), one)


def numbers(values: Sequence[int]) -> str:
    """Ascending numbers with runs collapsed: ``1, 4-7``."""
    runs: list[list[int]] = []
    for number in values:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in runs)


def percent(part: int, whole: int) -> str:
    """A share in percent."""
    if not whole:
        return "0%"
    share = 100 * part / whole
    return "<0.1%" if 0 < share < 0.1 else f"{share:.1f}%"


def channels(layer: LayerFacts) -> str:
    """Width of a layer, and how many channels can be removed."""
    can_go = {0: "none can go", layer.channels: "all can go"}
    return f"{layer.channels} ch, {can_go.get(layer.removable, f'{layer.removable} can go')}"


def group_size(group: GroupFacts) -> str:
    """Channels of a group; ``12 x 64`` if 64 leave at once, ``1 x 1-116`` if that differs by layer."""
    fewest, most = (count // group.units for count in group.channels)
    if fewest == most:
        return f"{group.units}" if most == 1 else f"{group.units} x {most}"
    return f"{group.units} x {fewest}-{most}"


def layer_words(layer: LayerFacts, facts: Facts) -> str:
    """Tooltip of a layer."""
    lines = [
        layer.name,
        f"{layer.op}: {channels(layer)}",
        f"{format_macs(layer.macs)}, {percent(layer.macs, facts.macs)} of the network",
    ]
    entering = [s.group for s in layer.entering if s.group is not None]
    lines.append(f"reads channels of groups {numbers(entering)}" if entering else "reads channels that stay")
    return "\n".join(lines)


def leaving_words(share: Share, layer: LayerFacts, facts: Facts) -> str:
    """Tooltip of a layer's output channels: what leaves with them, or why they stay."""
    part = f"{share.channels} of {layer.channels} channels"
    if share.group is None:
        reason = layer.reason
        if reason is None:
            return f"{part} stay"
        return f"{part} stay ({reason.letter}): {reason.sentence}"
    group = facts.groups[share.group - 1]
    together = [name for name in group.layers if name != layer.name]
    return "\n".join(
        [
            f"group {group.number}, {group.name}: {part}",
            f"leave together with the same of {listed(together)}" if together else "leave on their own",
            f"enter {listed(group.consumers)}" if group.consumers else "enter no other layer",
        ]
    )


def passing_words(share: Share, facts: Facts) -> str:
    """Tooltip of channels that enter a layer or leave a join."""
    if share.group is None:
        return f"{share.channels} channels that stay"
    return f"{share.channels} channels of group {share.group}, {facts.groups[share.group - 1].name}"
