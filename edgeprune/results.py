"""Results of the public functions other than ``compress``, and their rendering."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from edgeprune.artifacts.budget import BudgetSection
from edgeprune.artifacts.latency import LatencyPrediction, LatencyRatio, ModelFigures, Provenance
from edgeprune.artifacts.model import InputShape, InputShapes, shape_words
from edgeprune.artifacts.quantization import (
    HalvesReport,
    IntegerReport,
    MixedReport,
    Precision,
    QuantizationDetails,
)
from edgeprune.artifacts.report import (
    AccuracyFigure,
    AccuracyKind,
    Deviation,
    LayerRow,
    TensorDeviation,
    Usability,
)
from edgeprune.reporting.document import Document
from edgeprune.reporting.formatting import constant_channels, doubt, worst_channel
from edgeprune.reporting.tables import TerminalTable
from edgeprune.reporting.terminal import render_document
from edgeprune.showing import first_few

_NAMES_IN_CELL = 4
_OPERATORS_SHOWN = 4


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


@dataclass(frozen=True, kw_only=True)
class ProfileResult:
    """Size, work and latency of one ONNX file, beside a baseline where one was given."""

    path: str
    target: str
    figures: ModelFigures
    baseline_path: str | None
    baseline: ModelFigures | None
    latency_ratio: LatencyRatio | None
    prediction: LatencyPrediction | None
    baseline_prediction: LatencyPrediction | None
    notes: tuple[str, ...] = ()

    def render(self) -> RenderableType:
        """A table for the terminal; every time says where it comes from."""
        table = TerminalTable("", self.path, title=f"Profile for {self.target}")
        columns = [self.figures]
        predictions = [self.prediction]
        if self.baseline is not None:
            table.add_column(self.baseline_path or "baseline")
            columns.append(self.baseline)
            predictions.append(self.baseline_prediction)
        table.add_row("size", *(f"{f.size_bytes / 1024:,.1f} KiB" for f in columns))
        table.add_row("parameters", *(f"{f.parameters:,}" for f in columns))
        table.add_row("MACs", *(f"{f.macs / 1e6:,.3f} M" for f in columns))
        table.add_row("peak memory", *(_memory(f) for f in columns))
        table.add_row("latency", *(_latency(f) for f in columns))
        table.add_row("CPU time", *(_cpu_time(f) for f in columns))
        table.add_row("load, first run", *(_start(f) for f in columns))
        table.add_row("operators", *(_operators(f) for f in columns))
        if any(predictions):
            table.add_row(f"latency on {self.target}", *(_prediction(p) for p in predictions))
        parts: list[RenderableType] = [table]
        if self.latency_ratio is not None:
            r = self.latency_ratio
            parts.append(
                Text(
                    f"CPU time of {self.path} over {self.baseline_path}: {r.ratio:.3f} "
                    f"[{r.low:.3f}, {r.high:.3f}] ({r.confidence:.0%} interval, {r.pairs} interleaved pairs, "
                    f"{r.threads} threads, {r.provenance.value}){doubt(r)}"
                )
            )
        latency = self.figures.latency
        if latency is not None and latency.provenance is Provenance.MEASURED_ON_TARGET:
            parts.append(Text(f"{latency.runtime} on {latency.machine}"))
        parts.extend(Text(f"caution: {note}") for note in self.notes)
        return Group(*parts)


@dataclass(frozen=True, kw_only=True)
class QuantizationResult:
    """One ONNX file in fewer bits: what it costs and gains beside the one that it was made from.

    Accuracy and deviation are on images that were kept back; the CPU time says where it was measured.
    """

    source: str
    path: str
    target: str
    precision: Precision
    details: QuantizationDetails
    size_bytes: int
    source_size_bytes: int
    accuracy_kind: AccuracyKind
    accuracy: tuple[AccuracyFigure, ...]
    deviation: Deviation
    latency_ratio: LatencyRatio
    notes: tuple[str, ...]

    def render(self) -> RenderableType:
        """A table for the terminal."""
        table = TerminalTable("", "fp32", self.precision.value, title=f"{self.path} for {self.target}")
        before, after = self.accuracy
        table.add_row("size", _kib(self.source_size_bytes), _kib(self.size_bytes))
        table.add_row(self.accuracy_kind.value, _with_interval(before), _with_interval(after))
        ratio = self.latency_ratio
        table.add_row(
            f"CPU time, {ratio.provenance.value}",
            "1",
            f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]{doubt(ratio)}",
        )
        deviation = self.deviation
        agreement = (
            "" if deviation.top1_agreement is None else f", top-1 agreement {deviation.top1_agreement:.2%}"
        )
        channels = deviation.by_channel
        words = Text(
            f"outputs on {deviation.images} images kept back: cosine {deviation.cosine:.5f}, largest error "
            f"{deviation.relative_error:.2%} of the largest output{agreement}"
            if channels is None
            else f"outputs on {deviation.images} images kept back: the worst is {worst_channel(channels)}; "
            f"the largest error is {deviation.relative_error:.2%} of the largest output"
        )
        warning = [] if channels is None or not channels.constant else [_warning(constant_channels(channels))]
        return Group(*warning, table, words, *self._how(), *(Text(f"note: {note}") for note in self.notes))

    def _how(self) -> list[Text]:
        if isinstance(self.details, HalvesReport):
            return [Text(f"{self.details.stored} constants stored in 16 bits")]
        if isinstance(self.details, MixedReport):
            pieces = [Text(f"{piece.ends_with}: {piece.why}") for piece in self.details.pieces]
            harm = [] if self.details.harm is None else [Text(self.details.harm)]
            return [
                *pieces,
                *harm,
                *([] if self.details.integer is None else _integers(self.details.integer)),
            ]
        return _integers(self.details)


def _warning(words: str) -> Text:
    return Text(f"WARNING: {words}", style="bold red")


def _integers(report: IntegerReport) -> list[Text]:
    nodes = ", ".join(f"{count} {op}" for op, count in sorted(report.nodes.items()))
    return [
        Text(f"in 8 bits: {nodes}; kept in 32: {len(report.kept_float)} nodes"),
        Text(f"form: {report.format.reason}"),
        Text(
            f"ranges by {report.method.value} over {report.images} images; {report.equalized} pairs of "
            f"layers equalized, biases of {report.corrected} layers corrected"
        ),
        *(Text(f"{name} runs over blocks of pixels: the same result, sooner") for name in report.over_blocks),
    ]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Two models on the same images; ``tensors`` are those that both have, in order of calculation.

    ``passed``: the outputs' relative error is within ``tolerance``; ``first_diverging`` is the first tensor
    beyond it.
    """

    deviation: Deviation
    tolerance: float
    passed: bool
    tensors: tuple[TensorDeviation, ...]
    first_diverging: str | None

    def render(self) -> RenderableType:
        """Tables for the terminal: the outputs, and where inside the error grows most."""
        deviation = self.deviation
        outputs = TerminalTable("", f"{deviation.candidate} against {deviation.reference}", title="Outputs")
        outputs.add_row(
            "largest error", f"{deviation.max_abs_error:.3e} ({deviation.relative_error:.2e} of the largest)"
        )
        outputs.add_row("mean error", f"{deviation.mean_abs_error:.3e}")
        outputs.add_row("cosine", f"{deviation.cosine:.6f}")
        if deviation.top1_agreement is not None:
            outputs.add_row("same top-1", f"{deviation.top1_agreement:.2%}")
        outputs.add_row("images", str(deviation.images))
        verdict = "passed" if self.passed else "FAILED"
        parts: list[RenderableType] = [outputs, Text(f"{verdict} at a tolerance of {self.tolerance:g}")]
        if not self.tensors:
            parts.append(Text("no inner tensor has the same name and shape in both"))
            return Group(*parts)
        inside = TerminalTable(
            "tensor", "relative error", "grew by", "cosine", title=f"{len(self.tensors)} common inner tensors"
        )
        for tensor, growth in self._steepest():
            scaled = " (up to scales of channels)" if tensor.up_to_scales else ""
            inside.add_row(
                f"{tensor.name}{scaled}", f"{tensor.error:.2e}", f"{growth:+.2e}", f"{tensor.cosine:.6f}"
            )
        first = self.first_diverging or "none"
        return Group(*parts, Text(f"first inner tensor beyond the tolerance: {first}"), inside)

    def _steepest(self, most: int = 8) -> list[tuple[TensorDeviation, float]]:
        """Tensors where the error grows most over all earlier ones, in order of calculation."""
        grown, worst = [], 0.0
        for tensor in self.tensors:
            grown.append(tensor.error - worst)
            worst = max(worst, tensor.error)
        steepest = sorted(range(len(grown)), key=lambda place: -grown[place])[:most]
        return [(self.tensors[place], grown[place]) for place in sorted(steepest) if grown[place] > 0]


def _kib(size_bytes: int) -> str:
    return f"{size_bytes / 1024:,.1f} KiB"


def _with_interval(figure: AccuracyFigure) -> str:
    return f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"


def _memory(figures: ModelFigures) -> str:
    if figures.peak_memory_bytes is None:
        return "not measurable here"
    where = Provenance.MEASURED_ON_HOST if figures.latency is None else figures.latency.provenance
    return f"{figures.peak_memory_bytes / 2**20:,.1f} MiB ({where.value})"


def _latency(figures: ModelFigures) -> str:
    latency = figures.latency
    if latency is None:
        return "not measured"
    p99 = "" if latency.latency_p99_ms is None else f", p99 {latency.latency_p99_ms:.3f} ms"
    return (
        f"p50 {latency.latency_p50_ms:.3f} ms, p90 {latency.latency_p90_ms:.3f} ms{p99} "
        f"({latency.provenance.value}){doubt(latency)}"
    )


def _cpu_time(figures: ModelFigures) -> str:
    latency = figures.latency
    return "-" if latency is None else f"p50 {latency.cpu_time_p50_ms:.3f} ms{doubt(latency)}"


def _start(figures: ModelFigures) -> str:
    latency = figures.latency
    if latency is None or latency.load_ms is None or latency.first_run_ms is None:
        return "-"
    return f"{latency.load_ms:.1f} ms, {latency.first_run_ms:.2f} ms{doubt(latency)}"


def _operators(figures: ModelFigures) -> str:
    """Those that take most of the time."""
    operators = () if figures.latency is None else figures.latency.operators
    named = [f"{part.op_type} {part.share:.0%}" for part in operators[:_OPERATORS_SHOWN]]
    rest = sum(part.share for part in operators[_OPERATORS_SHOWN:])
    return ", ".join([*named, f"others {rest:.0%}"] if rest else named) or "-"


def _prediction(prediction: LatencyPrediction | None) -> str:
    if prediction is None:
        return "-"
    return (
        f"{prediction.latency_ms:.2f} ms [{prediction.low_ms:.2f}, {prediction.high_ms:.2f}] "
        f"({prediction.provenance.value})"
    )
