"""Results of what is done with files as they are, and their rendering."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from edgeprune.artifacts.latency import LatencyPrediction, LatencyRatio, ModelFigures, Provenance
from edgeprune.artifacts.quantization import (
    Float16Report,
    IntegerReport,
    MixedReport,
    Precision,
    QuantizationDetails,
)
from edgeprune.artifacts.report import (
    AccuracyFigure,
    AccuracyKind,
    Deviation,
    TensorDeviation,
)
from edgeprune.reporting.formatting import constant_channels, doubt, worst_channel
from edgeprune.reporting.tables import TerminalTable

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
            table.add_row(f"memory on {self.target}", *(_predicted_memory(p) for p in predictions))
        if any(p is not None and p.energy_mj is not None for p in predictions):
            table.add_row(f"energy on {self.target}", *(_energy(p) for p in predictions))
        parts: list[RenderableType] = [table]
        if self.prediction is not None:
            parts.append(_predicted_kinds(self.prediction))
            parts += [Text(f"prediction: {self.prediction.basis}"), *_notes_of(self.prediction)]
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
        if isinstance(self.details, Float16Report):
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
    beyond it. ``emulated_core``: on which the second one ran, of which only the outputs are known.
    """

    deviation: Deviation
    tolerance: float
    passed: bool
    tensors: tuple[TensorDeviation, ...]
    first_diverging: str | None
    emulated_core: str | None = None

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


def _predicted_kinds(prediction: LatencyPrediction) -> RenderableType:
    table = TerminalTable("predicted time by kind", "bits", "nodes", "ms", "share", box=None)
    for row in prediction.kinds:
        share = row.latency_ms / prediction.latency_ms if prediction.latency_ms else 0.0
        bits = "8" if row.in_8_bits else "32"
        table.add_row(row.kind, bits, str(row.nodes), f"{row.latency_ms:.3f}", f"{share:.0%}")
    return table


def _notes_of(prediction: LatencyPrediction) -> list[RenderableType]:
    return [Text(f"note: {note}") for note in prediction.notes]
