"""A report with made-up figures that exercises every section; the golden files show it."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.artifacts.budget import Budget, BudgetSection, Candidate, PairedDrop
from edgeprune.artifacts.latency import (
    LatencyMeasurement,
    LatencyPrediction,
    LatencyRatio,
    ModelFigures,
    OperatorTime,
    OperatorTimes,
    Provenance,
)
from edgeprune.artifacts.model import ModelSection
from edgeprune.artifacts.pruning import ChannelImportance, DecisionMeasure, GroupImportance, NetworkDecision
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.artifacts.quantization import Precision
from edgeprune.artifacts.report import (
    REPORT_SCHEMA_VERSION,
    AnswerCounts,
    CalibrationSection,
    DeploymentSection,
    Environment,
    LayerRow,
    ParityFigure,
    PreprocessingSection,
    PruningSection,
    RankingSection,
    RecoverySection,
    RunReport,
    StageTime,
    Usability,
    Verdict,
)
from edgeprune.commands.run.usability import Circumstances, judge_answers
from edgeprune.commands.search.paired_drop import paired_drop, points_of


def measurement(p50: float) -> LatencyMeasurement:
    return LatencyMeasurement(
        provenance=Provenance.MEASURED_ON_HOST,
        latency_p50_ms=p50,
        latency_p90_ms=p50 * 1.25,
        cpu_time_p50_ms=p50 * 1.01,
        repetitions=200,
        warmup=20,
        threads=1,
        batch_size=1,
        runtime="onnxruntime 9.9.9",
        machine="Synthetic CPU, 2 cores",
    )


def prediction(latency: float) -> LatencyPrediction:
    return LatencyPrediction(
        provenance=Provenance.PREDICTED,
        target="rpi4",
        latency_ms=latency,
        low_ms=latency / 2,
        high_ms=latency * 2,
        compute_bound_share=0.625,
        basis="roofline over 12 nodes",
    )


def parity(reference: str, candidate: str, error: float, verdict: Verdict = Verdict.PASSED) -> ParityFigure:
    return ParityFigure(
        reference=reference,
        candidate=candidate,
        max_abs_error=error * 10,
        mean_abs_error=error,
        relative_error=error,
        cosine=0.9999999,
        top1_agreement=1.0,
        images=64,
        tolerance=1e-4,
        verdict=verdict,
    )


def accuracy(stage: str, value: float) -> AccuracyFigure:
    return AccuracyFigure(stage=stage, value=value, low=value - 0.021, high=value + 0.011, images=360)


def candidate(
    name: str, share: float, size: int, *, drop: float | None = None, exceeded: tuple[str, ...] = ()
) -> Candidate:
    return Candidate(
        name=name,
        macs_share=share,
        latency_ms=1.5 * share,
        latency_share=share,
        latency_provenance=Provenance.PREDICTED,
        size_bytes=size,
        memory_bytes=None,
        drop_points=drop,
        exceeded=exceeded,
    )


def synthetic_budget() -> BudgetSection:
    """A search of two candidates."""
    return BudgetSection(
        budget=Budget(max_latency_share=0.8, max_size_bytes=70_000, max_drop_points=1.0),
        original=candidate("original", 1.0, 81_920, drop=0.0),
        candidates=(
            candidate("candidate 1", 0.85, 66_000, exceeded=("latency",)),
            candidate("candidate 2", 0.73, 61_444, drop=0.25),
        ),
        chosen="candidate 2",
        binding="latency",
        drop_of="top-1 accuracy",
    )


def _to_six_digits(drop: PairedDrop) -> PairedDrop:
    """With a confidence whose last digits do not depend on the processor's instructions."""
    assert drop.confidence is not None
    return replace(drop, confidence=float(f"{drop.confidence:.6g}"))


def synthetic_default() -> BudgetSection:
    """A search that nobody asked for, on this host: of three ways 8 bits on top of pruning paid."""
    original = replace(
        candidate("original", 1.0, 81_920, drop=0.0), latency_provenance=Provenance.MEASURED_ON_HOST
    )

    def way(number: int, share: float, macs: float, lost: int, precision: Precision) -> Candidate:
        counts = AnswerCounts(images=360, kept_from=355, lost=lost, gained=1)
        return replace(
            candidate(f"candidate {number}", share, round(81_920 * share), drop=points_of(counts)),
            macs_share=macs,
            latency_provenance=Provenance.MEASURED_ON_HOST,
            latency_share_high=share + 0.01,
            precision=precision,
            fewer_bits=precision is not Precision.FP32,
            paired=_to_six_digits(paired_drop(counts, 1.0)),
            exceeded=("drop",) if points_of(counts) > 1.0 else (),
        )

    return BudgetSection(
        budget=Budget(max_drop_points=1.0),
        original=original,
        candidates=(
            way(1, 0.62, 1.0, 3, Precision.AUTO),
            way(2, 0.86, 0.8, 2, Precision.FP32),
            way(3, 0.71, 0.61, 17, Precision.FP32),
            way(4, 0.55, 0.8, 4, Precision.AUTO),
        ),
        chosen="candidate 4",
        binding="drop",
        drop_of="top-1 accuracy",
        by_default=True,
    )


def usability(lost: int, gained: int) -> Usability:
    """Of 360 held-out images the original has 355 right."""
    return judge_answers(
        AccuracyKind.TOP1,
        AnswerCounts(images=360, kept_from=355, lost=lost, gained=gained),
        Circumstances(
            macs_removed_share=0.2613,
            in_budget=False,
            finetuned=False,
            recipe=None,
            fitting_images=1000,
            precision=Precision.FP32,
        ),
    )


def ruined_report() -> RunReport:
    """The same run with a network that recovery has ruined."""
    report = synthetic_report()
    figures = (*report.accuracy[:2], accuracy("recovered", 0.0806), accuracy("ONNX", 0.0806))
    return replace(report, accuracy=figures, usability=usability(lost=328, gained=2))


def synthetic_report() -> RunReport:
    return RunReport(
        schema_version=REPORT_SCHEMA_VERSION,
        usability=usability(lost=4, gained=2),
        created_utc="2030-01-02T03:04:05+00:00",
        model=ModelSection(
            source="models/odd|name_[bold].safetensors",
            format="state-dict",
            architecture="examples/digits/model.py:digits_net",
            input_shape=(1, 8, 8),
            sha256="ab" * 32,
        ),
        calibration=CalibrationSection(
            source="calibration/digits.npz",
            fingerprint_sha256="cd" * 32,
            fitting_images=1000,
            held_out_images=360,
            labelled=True,
            warnings=("2 of 10 classes have fewer than 5 images",),
        ),
        ranking=RankingSection(
            players=96,
            groups=5,
            methods={"multilinear": 4, "exact": 1},
            aggregate="rms",
            loss="cross-entropy",
            evaluations=48,
            images=1000,
            q_low=0.5,
            q_high=0.95,
            median_relative_standard_error=0.0312,
            rounds=(0.2, 0.35),
        ),
        pruning=PruningSection(
            ratio_asked=0.25,
            ratio_asked_by="--ratio",
            macs_removed_share=0.2613,
            width_quantum=4,
            players_removed=20,
            blocks_dropped=(),
            layers=(
                LayerRow(
                    layer="stem.conv",
                    op="convolution",
                    channels_before=16,
                    channels_after=12,
                    macs_before=1_204_224,
                    macs_after=903_168,
                    group="stem.conv",
                    frozen_by=None,
                ),
                LayerRow(
                    layer="head",
                    op="linear",
                    channels_before=10,
                    channels_after=10,
                    macs_before=640,
                    macs_after=640,
                    group=None,
                    frozen_by="output",
                ),
            ),
        ),
        recovery=RecoverySection(
            layers_solved=6,
            layers_changed=5,
            images=800,
            deciding_images=200,
            mean_error_before=0.3141,
            mean_error_after=0.0271,
            decision=NetworkDecision(
                step="recovery",
                measure=DecisionMeasure.CHANGED_ANSWERS,
                taken=True,
                beyond_chance=True,
                before=0.185,
                after=0.02,
                difference=-0.165,
                standard_error=0.0263,
                images=200,
            ),
            distillation=None,
            recipe=None,
        ),
        accuracy_kind=AccuracyKind.TOP1,
        accuracy=(
            accuracy("original", 0.9861),
            accuracy("pruned without recovery", 0.8139),
            accuracy("recovered", 0.9806),
            accuracy("ONNX", 0.9806),
        ),
        parity=(
            parity("original", "masked", 0.0),
            parity("pruned", "ONNX", 3.2e-7),
        ),
        deployment=DeploymentSection(
            target="rpi4",
            original=ModelFigures(
                size_bytes=81_920,
                parameters=19_850,
                macs=4_900_000,
                peak_memory_bytes=None,
                latency=measurement(0.1234),
            ),
            compressed=ModelFigures(
                size_bytes=61_444,
                parameters=14_210,
                macs=3_619_630,
                peak_memory_bytes=5_500_000,
                latency=measurement(0.0987),
            ),
            latency_ratio=LatencyRatio(
                ratio=0.81, low=0.78, high=0.84, confidence=0.95, pairs=100, threads=1
            ),
            original_prediction=prediction(1.5),
            compressed_prediction=prediction(1.1),
        ),
        budget=None,
        stage_times=(
            StageTime(stage="load", duration_s=0.12),
            StageTime(stage="rank", duration_s=4.5),
        ),
        environment=Environment(
            edgeprune="0.0.0",
            python="3.99.0",
            packages={"torch": "9.9.9", "onnx": "8.8.8"},
            machine="Synthetic CPU, 2 cores",
            threads=1,
            seed=0,
            command="edgeprune compress net.safetensors --target rpi4",
        ),
        notes=("no rule for op aten.foo; 4 channels stay",),
        importance=(
            GroupImportance(
                group="stem.conv",
                layers=("stem.conv",),
                channels=16,
                removed=4,
                shown=(
                    ChannelImportance(place=1, value=0.81, standard_error=0.02, removed=False),
                    ChannelImportance(place=9, value=0.25, standard_error=0.01, removed=False),
                    ChannelImportance(place=16, value=0.03, standard_error=None, removed=True),
                ),
            ),
        ),
        preprocessing=PreprocessingSection(
            exif=True,
            ground="black",
            resize=(256,),
            letterbox=None,
            pad=None,
            crop=(224, 320),
            channel_order="rgb",
            mean=(0.485, 127 / 255, 0.406),
            std=None,
        ),
        operators=OperatorTimes(
            original=(
                OperatorTime(operator="Conv", nodes=2, time_ms=0.09),
                OperatorTime(operator="Gemm", nodes=1, time_ms=0.02),
            ),
            compressed=(
                OperatorTime(operator="Conv", nodes=2, time_ms=0.06),
                OperatorTime(operator="Gemm", nodes=1, time_ms=0.02),
            ),
            runs=30,
            threads=1,
        ),
    )
