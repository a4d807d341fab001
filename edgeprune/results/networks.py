"""Results of what is done with networks, other than ``compress``, and their rendering."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from edgeprune.artifacts.budget import BudgetSection
from edgeprune.artifacts.model import InputShape, InputShapes, shape_words
from edgeprune.artifacts.report import (
    LayerRow,
    Usability,
)
from edgeprune.reporting.document import Document
from edgeprune.reporting.tables import TerminalTable
from edgeprune.reporting.terminal import render_document
from edgeprune.showing import first_few

_NAMES_IN_CELL = 4


@dataclass(frozen=True, kw_only=True)
class PickedCandidate:
    """What was picked of a search: what it is good for, and all candidates held against the new limits."""

    usability: Usability
    budget: BudgetSection
    document: Document = field(repr=False)

    def render(self) -> RenderableType:
        """Headline, figures and candidates for the terminal."""
        return render_document(self.document)


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """One coupled group: interchangeable channels and the layers that they tie together."""

    group: str
    channels: int
    layers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a model is made of, what can be pruned, what cannot and why; ``graph`` is the drawing's path."""

    source: str
    input_shape: InputShape | InputShapes
    parameters: int
    macs: int
    players: int
    layers: tuple[LayerRow, ...]
    groups: tuple[GroupRow, ...]
    unruled_ops: tuple[str, ...]
    notes: tuple[str, ...]
    graph: str | None = None

    def render(self) -> RenderableType:
        """Tables for the terminal."""
        head = Text(
            f"{self.source}: input {shape_words(self.input_shape)}, {self.parameters:,} parameters, "
            f"{self.macs / 1e6:,.2f} M MACs, {self.players:,} prunable channels in {len(self.groups)} groups"
        )
        layers = TerminalTable("layer", "op", "channels", "M MACs", "group", "stays because", title="Layers")
        for row in self.layers:
            layers.add_row(
                row.layer,
                row.op,
                str(row.channels_before),
                f"{row.macs_before / 1e6:,.3f}",
                row.group or "-",
                row.frozen_by or "",
            )
        groups = TerminalTable("group", "channels", "produced by", "enter", title="Coupled groups")
        for group in self.groups:
            groups.add_row(
                group.group,
                str(group.channels),
                first_few(group.layers, _NAMES_IN_CELL),
                first_few(group.consumers, _NAMES_IN_CELL),
            )
        parts: list[RenderableType] = [head, layers, groups]
        if self.unruled_ops:
            parts.append(Text("ops without a rule (their channels stay): " + ", ".join(self.unruled_ops)))
        parts.extend(Text(f"note: {note}") for note in self.notes)
        if self.graph is not None:
            parts.append(Text(f"drawing of the coupled groups: {self.graph}"))
        return Group(*parts)


@dataclass(frozen=True, kw_only=True)
class PredictedCost:
    """Predicted cost of a plan and its limit, as shares of the original's."""

    cost: str
    share: float
    limit_share: float


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """The plan that ``compress`` would carry out, or build first for a budget; nothing was written."""

    source: str
    target: str
    ratio_asked: float
    macs_before: int
    macs_after: int
    width_quantum: int
    layers: tuple[LayerRow, ...]
    notes: tuple[str, ...]
    predicted: tuple[PredictedCost, ...] = ()
    by_default: bool = False

    @property
    def _meant(self) -> str:
        """Meaning of the share shown beside each predicted cost."""
        return "tried first" if self.by_default else "allowed"

    def render(self) -> RenderableType:
        """Tables for the terminal."""
        share = 1 - self.macs_after / self.macs_before
        head = Text(
            f"dry run, nothing written: {self.source} for {self.target}, {share:.1%} of the MACs would go "
            f"({self.macs_before / 1e6:,.2f} M -> {self.macs_after / 1e6:,.2f} M)"
        )
        table = TerminalTable("layer", "channels", "M MACs", title="Plan")
        for row in self.layers:
            table.add_row(
                row.layer,
                f"{row.channels_before} -> {row.channels_after}",
                f"{row.macs_before / 1e6:,.3f} -> {row.macs_after / 1e6:,.3f}",
            )
        costs = [
            Text(f"{c.cost}: {c.share:.1%} of the original predicted, {c.limit_share:.1%} {self._meant}")
            for c in self.predicted
        ]
        return Group(head, *costs, table, *(Text(f"note: {note}") for note in self.notes))
