"""Results of what is done with files as they are, and their rendering."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from edgeprune.artifacts.latency import (
    InstructionCounts,
    LatencyPrediction,
    LatencyRatio,
    ModelFigures,
    PredictedKind,
    Provenance,
)
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.artifacts.quantization import (
    Float16Report,
    IntegerReport,
    MixedReport,
    Precision,
    QuantizationDetails,
)
from edgeprune.artifacts.report import Deviation, TensorDeviation
from edgeprune.reporting.formatting import constant_channels, count_words, doubt, timing_words, worst_channel
from edgeprune.reporting.quantization_words import nodes_words, stored_words, weighed_by
from edgeprune.reporting.table import Table
from edgeprune.reporting.tables import TerminalTable, grid_of

_OPERATORS_SHOWN = 4


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

    @property
    def table(self) -> Table:
        """All figures, one column a file; every time says where it comes from."""
        columns, predictions = [self.figures], [self.prediction]
        names = ["", self.path]
        if self.baseline is not None:
            names.append(self.baseline_path or "baseline")
            columns.append(self.baseline)
            predictions.append(self.baseline_prediction)
        told: list[tuple[str, Iterable[str]]] = [
            ("size", (f"{f.size_bytes / 1024:,.1f} KiB" for f in columns)),
            ("parameters", (f"{f.parameters:,}" for f in columns)),
            ("MACs", (f"{f.macs / 1e6:,.3f} M" for f in columns)),
            ("peak memory", map(_memory, columns)),
            ("latency", map(_latency, columns)),
            ("CPU time", map(_cpu_time, columns)),
            ("load, first run", map(_start, columns)),
            ("operators", map(_operators, columns)),
        ]
        if any(predictions):
            told.append((f"latency on {self.target}", map(_prediction, predictions)))
            told.append((f"memory on {self.target}", map(_predicted_memory, predictions)))
        if any(p is not None and p.energy_mj is not None for p in predictions):
            told.append((f"energy on {self.target}", map(_energy, predictions)))
        rows = tuple((label, *cells) for label, cells in told)
        return Table(title=f"Profile for {self.target}", columns=tuple(names), rows=rows)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The basis of a prediction, the comparison with the baseline, the device, and cautions."""
        words: list[str] = []
        if self.prediction is not None:
            words.append(f"prediction: {self.prediction.basis}")
            words += [f"note: {note}" for note in self.prediction.notes]
        if self.latency_ratio is not None:
            r = self.latency_ratio
            words.append(
                f"CPU time of {self.path} over {self.baseline_path}: {r.ratio:.3f} "
                f"[{r.low:.3f}, {r.high:.3f}] ({r.confidence:.0%} interval, {r.pairs} interleaved pairs, "
                f"{count_words(r.threads, 'thread')}, {r.provenance.value}){doubt(r)}"
            )
        latency = self.figures.latency
        if latency is not None:
            words.append(f"times: {timing_words(latency)}")
        return (*words, *(f"caution: {note}" for note in self.notes))

    def render(self) -> RenderableType:
        """A table for the terminal, predicted time by kind of operator, and remarks."""
        kinds = [] if self.prediction is None else [grid_of(kinds_table(self.prediction), box=None)]
        return Group(grid_of(self.table), *kinds, *map(Text, self.remarks))


@dataclass(frozen=True, kw_only=True)
class QuantizationResult:
    """One ONNX file in fewer bits: what it costs and gains beside the one that it was made from.

    Accuracy and deviation are on images that were kept back; the CPU time says where it was measured.
    ``cannot_be_judged``: why no loss can be told from these images, whatever the figures; ``None`` if it can.
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
    cannot_be_judged: str | None = None

    @property
    def table(self) -> Table:
        """Size, quality and CPU time of both files."""
        before, after = self.accuracy
        ratio = self.latency_ratio
        share = f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]{doubt(ratio)}"
        return Table(
            title=f"{self.path} for {self.target}",
            columns=("", "fp32", self.precision.value),
            rows=(
                ("size", _kib(self.source_size_bytes), _kib(self.size_bytes)),
                (self.accuracy_kind.value, _with_interval(before), _with_interval(after)),
                (f"CPU time, {ratio.provenance.value}", "1", share),
            ),
        )

    @property
    def warning(self) -> str:
        """Channels that became constant, and why no loss can be told; empty where there is neither."""
        channels = self.deviation.by_channel
        told = [] if channels is None or not channels.constant else [constant_channels(channels)]
        if self.cannot_be_judged is not None:
            told.append(f"cannot be judged: {self.cannot_be_judged}")
        return "; ".join(told)

    @property
    def agreement(self) -> str:
        """How near the outputs are."""
        deviation, channels = self.deviation, self.deviation.by_channel
        same = "" if deviation.top1_agreement is None else f", top-1 agreement {deviation.top1_agreement:.2%}"
        if channels is None:
            return (
                f"outputs on {deviation.images} images kept back: cosine {deviation.cosine:.5f}, largest "
                f"error {deviation.relative_error:.2%} of the largest output{same}"
            )
        return (
            f"outputs on {deviation.images} images kept back: the worst is {worst_channel(channels)}; "
            f"the largest error is {deviation.relative_error:.2%} of the largest output"
        )

    @property
    def how(self) -> tuple[str, ...]:
        """What is stored and calculated in fewer bits."""
        if isinstance(self.details, Float16Report):
            return (f"{self.details.stored} constants stored in 16 bits",)
        if isinstance(self.details, MixedReport):
            pieces = (f"{piece.ends_with}: {piece.why}" for piece in self.details.pieces)
            harm = () if self.details.harm is None else (self.details.harm,)
            rest = () if self.details.integer is None else _integers(self.details.integer)
            return (*pieces, *harm, *rest)
        return _integers(self.details)

    def render(self) -> RenderableType:
        """A table for the terminal, with what was done and the notes."""
        notes = (f"note: {note}" for note in self.notes)
        warning = [_warning(self.warning)] if self.warning else []
        return Group(*warning, grid_of(self.table), *map(Text, (self.agreement, *self.how, *notes)))


def _warning(words: str) -> Text:
    return Text(f"WARNING: {words}", style="bold red")


def _integers(report: IntegerReport) -> tuple[str, ...]:
    kept = f"; {count_words(len(report.kept_float), 'node')} kept in 32" if report.kept_float else ""
    return (
        f"in 8 bits: {nodes_words(report)}{kept}; operators without an 8-bit form run in 32"
        f"{', too' if kept else ''}",
        f"form: {report.format.reason}",
        f"ranges by {report.method.value} over {report.images} images{weighed_by(report)}; "
        f"{report.equalized} pairs of layers equalized, biases of {report.corrected} layers corrected",
        *(f"{name} runs over blocks of pixels: the same result, sooner" for name in report.over_blocks),
        *((f"weights stored in 8 bits: {stored_words(report)}",) if report.stored else ()),
    )


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Two models on the same images; ``tensors`` are those that both have, in order of calculation.

    ``passed``: the outputs' relative error is within ``tolerance``; ``first_diverging`` is the first tensor
    beyond it. ``emulated_core``: on which the second one ran, of which only the outputs are known, and the
    ``instructions`` of a run, or why they were not counted (``uncounted``).
    """

    deviation: Deviation
    tolerance: float
    passed: bool
    tensors: tuple[TensorDeviation, ...]
    first_diverging: str | None
    emulated_core: str | None = None
    instructions: InstructionCounts | None = None
    uncounted: str | None = None

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
        if self.emulated_core is not None:
            parts.append(
                Text(
                    f"by onnxruntime for aarch64 on {self.emulated_core}, emulated: of its instructions, "
                    "not of its speed"
                )
            )
            parts.append(self._counted())
            return Group(*parts)
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

    def _counted(self) -> RenderableType:
        """Instructions of a run by class, or why there are none."""
        if self.instructions is None:
            return Text(f"not counted: {self.uncounted}")
        table = TerminalTable("instructions of a run", "count", "share")
        for name in (*self.instructions.names(), "total"):
            count = getattr(self.instructions, name)
            table.add_row(
                name.replace("_", " "), f"{count:,}", f"{count / max(1, self.instructions.total):.1%}"
            )
        return table


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


def _predicted_memory(prediction: LatencyPrediction | None) -> str:
    if prediction is None or prediction.memory_bytes is None:
        return "-"
    fits = "" if prediction.fits is not False else ", does not fit"
    return f"{prediction.memory_bytes / 2**20:.1f} MiB weights and values (predicted{fits})"


def _energy(prediction: LatencyPrediction | None) -> str:
    if prediction is None or prediction.energy_mj is None:
        return "-"
    return f"{prediction.energy_mj:.3g} mJ (estimate: the board's power with all cores busy x latency)"


def kinds_table(prediction: LatencyPrediction) -> Table:
    """Predicted time by kind of operator."""

    def row(kind: PredictedKind) -> tuple[str, ...]:
        share = kind.latency_ms / prediction.latency_ms if prediction.latency_ms else 0.0
        bits = "8" if kind.in_8_bits else "32"
        return kind.kind, bits, str(kind.nodes), f"{kind.latency_ms:.3f}", f"{share:.0%}"

    return Table(
        title="",
        columns=("predicted time by kind", "bits", "nodes", "ms", "share"),
        rows=tuple(map(row, prediction.kinds)),
        numeric_columns=frozenset({1, 2, 3, 4}),
    )
