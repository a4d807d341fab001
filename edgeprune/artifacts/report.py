"""The report of one run: everything that a person or a CI step reads afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, ClassVar

from edgeprune.artifacts.budget import BudgetSection
from edgeprune.artifacts.latency import (
    LatencyPrediction,
    LatencyRatio,
    ModelFigures,
    OperatorTimes,
    StageTime,
)
from edgeprune.artifacts.model import ModelSection
from edgeprune.artifacts.pruning import DistillationReport, GroupImportance, NetworkDecision, RankingOrigin
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind, RankingCurves
from edgeprune.artifacts.quantization import Float16Report, IntegerReport, MixedReport, Precision

REPORT_SCHEMA_VERSION = "1.9"


class Verdict(Enum):
    """Outcome of one check."""

    PASSED = "passed"
    FAILED = "failed"


class Grade(Enum):
    """What the delivered network is good for, by the answers (or outputs) that it keeps of the original's."""

    USABLE = "usable"
    INCONCLUSIVE = "inconclusive"
    DEGRADED = "degraded"
    NOT_USABLE = "not usable"


@dataclass(frozen=True, kw_only=True)
class AnswerCounts:
    """Held-out images by what the original and the delivered network answer.

    ``kept_from``: answers of the original that count, which are the right ones, or without labels all;
    ``lost``: those of them that the delivered network gives no more; ``gained``: images that it has right and
    the original has not.
    """

    images: int
    kept_from: int
    lost: int
    gained: int

    @property
    def consistent(self) -> bool:
        """Whether no count is negative and no part exceeds its whole."""
        return 0 <= self.lost <= self.kept_from and 0 <= self.gained <= self.images - self.kept_from


@dataclass(frozen=True, kw_only=True)
class ChannelDeviation:
    """How far one channel of an output is off; both are counted from 0.

    ``relative_error``: root of the mean squared error over the channel's spread in the reference (that of the
    largest channel of its unit over 10 if that is more). ``constant``: it no longer depends on the image.
    """

    output: int
    channel: int
    relative_error: float
    constant: bool


@dataclass(frozen=True, kw_only=True)
class ChannelSummary:
    """Channels of all outputs: the worst ones first, how many there are, and how many became constant."""

    worst: tuple[ChannelDeviation, ...]
    channels: int
    constant: int


@dataclass(frozen=True, kw_only=True)
class Usability:
    """Whether the delivered network is any good, in a sentence that comes before everything else.

    ``loss`` is the share of the original's answers (or of its AP, mean IoU or metric) that is lost, less what
    is gained, or the relative squared error where the outputs are no class scores; ``low`` and ``high`` are
    its 95% interval; ``None``: the original has nothing to lose.
    ``what_to_do`` is empty where nothing is to be done. ``slower``: than the
    original, on the target, as measured or predicted. ``by_channel`` of outputs that are no class scores.
    """

    grade: Grade
    headline: str
    what_to_do: tuple[str, ...]
    loss: float | None
    low: float | None
    high: float | None
    images: int
    answers: AnswerCounts | None
    slower: bool = False
    by_channel: ChannelSummary | None = None


@dataclass(frozen=True, kw_only=True)
class ParityFigure:
    """How far two neighbours of the chain are apart on calibration images.

    ``relative_error`` is max |a - b| / max |a|. ``top1_agreement`` is ``None`` where the output is
    no class score, ``by_channel`` where it is one. ``tolerance`` applies to ``relative_error``.
    """

    reference: str
    candidate: str
    max_abs_error: float
    mean_abs_error: float
    relative_error: float
    cosine: float
    top1_agreement: float | None
    images: int
    tolerance: float
    verdict: Verdict
    by_channel: ChannelSummary | None = None


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far a model that is meant to differ is from its reference; fields as in :class:`ParityFigure`."""

    reference: str
    candidate: str
    max_abs_error: float
    mean_abs_error: float
    relative_error: float
    cosine: float
    top1_agreement: float | None
    images: int
    by_channel: ChannelSummary | None = None


@dataclass(frozen=True, kw_only=True)
class TensorDeviation:
    """How far an inner tensor of two models differs: root of the mean squared error over that of the first.

    ``up_to_scales``: after every channel was scaled to fit, since the second model's were scaled on purpose.
    """

    name: str
    error: float
    cosine: float
    up_to_scales: bool = False


@dataclass(frozen=True, kw_only=True)
class InnerParity:
    """How far the inner tensors of two models are apart that both have under one name.

    ``first_apart`` is the first in order of calculation beyond ``tolerance``, ``farthest`` the one with the
    greatest error; both ``None`` where there is none.
    """

    compared: int
    tolerance: float
    first_apart: TensorDeviation | None
    farthest: TensorDeviation | None


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One prunable or frozen layer of the model before and after."""

    layer: str
    op: str
    channels_before: int
    channels_after: int
    macs_before: int
    macs_after: int
    group: str | None
    frozen_by: str | None


@dataclass(frozen=True, kw_only=True)
class CalibrationSection:
    """The images behind every figure."""

    source: str
    fingerprint_sha256: str
    fitting_images: int
    held_out_images: int
    labelled: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RankingSection:
    """How players were valued; ``None`` is what only ``hybrid`` has, or a ranking that was given (``origin``)
    does not tell. ``choice`` says in words what the criterion computed."""

    players: int
    groups: int
    methods: dict[str, int]
    aggregate: str | None
    loss: str
    evaluations: int
    images: int
    q_low: float | None
    q_high: float | None
    median_relative_standard_error: float | None
    rounds: tuple[float, ...] = ()
    origin: RankingOrigin | None = None
    criterion: str = "hybrid"
    choice: str = ""


@dataclass(frozen=True, kw_only=True)
class PruningSection:
    """What was removed."""

    ratio_asked: float
    ratio_asked_by: str
    macs_removed_share: float
    width_quantum: int
    players_removed: int
    blocks_dropped: tuple[str, ...]
    layers: tuple[LayerRow, ...]


@dataclass(frozen=True, kw_only=True)
class RecoverySection:
    """How accuracy came back without training, and what training on request added.

    Errors are means over layers, on ``deciding_images`` that nothing was fitted to; ``layers_changed`` of the
    ``layers_solved`` became better on those. ``decision`` is the same for the network as a whole.
    """

    layers_solved: int
    layers_changed: int
    images: int
    deciding_images: int
    mean_error_before: float
    mean_error_after: float
    decision: NetworkDecision | None
    distillation: DistillationReport | None
    recipe: str | None


@dataclass(frozen=True, kw_only=True)
class DeploymentSection:
    """Original and compressed ONNX on this host, and on the target where that is another device.

    ``is_original``: the delivered file is the original's byte for byte, so that there is no ratio.
    """

    target: str
    original: ModelFigures
    compressed: ModelFigures
    latency_ratio: LatencyRatio | None
    original_prediction: LatencyPrediction | None
    compressed_prediction: LatencyPrediction | None
    is_original: bool = False


@dataclass(frozen=True, kw_only=True)
class QuantizationSection:
    """How the delivered file was stored in fewer bits than the 32-bit one beside it.

    ``integer`` tells of 8 bits, ``mixed`` of 8 and 32, ``float16`` of 16; ``deviation`` is that of both files
    on calibration images, ``inner`` that of the tensors inside.
    """

    precision: Precision
    integer: IntegerReport | None
    mixed: MixedReport | None
    float16: Float16Report | None
    deviation: Deviation
    inner: InnerParity
    float_size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Versions and machine, so that a figure can be repeated."""

    edgeprune: str
    python: str
    packages: dict[str, str]
    machine: str
    threads: int
    seed: int
    command: str


@dataclass(frozen=True)
class Words:
    """Annotation of a field of a :class:`FactSection`: what it is called in reports."""

    text: str


class FactSection:
    """Base of a section that reports show as a table of its fields; ``None`` is left out."""

    TITLE: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class PreprocessingSection(FactSection):
    """How an image became the input, in this order; a size is that of a side, or height and width."""

    TITLE: ClassVar[str] = "Preprocessing"
    exif: Annotated[bool, Words("turned upright by EXIF")]
    ground: Annotated[str, Words("under transparent parts")]
    resize: Annotated[tuple[int, ...] | None, Words("resized (shorter side, or height x width)")]
    letterbox: Annotated[tuple[int, ...] | None, Words("letterbox (square, or height x width)")]
    pad: Annotated[int | None, Words("grey of the letterbox")]
    crop: Annotated[tuple[int, ...] | None, Words("centre crop (square, or height x width)")]
    channel_order: Annotated[str, Words("channel order, pixels in 0 to 1")]
    mean: Annotated[tuple[float, ...] | None, Words("mean subtracted")]
    std: Annotated[tuple[float, ...] | None, Words("divided by")]


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """All of the above. ``notes`` holds every fallback and warning, ``budget`` a search if there was one.

    ``usability`` is ``None`` only in a report of schema 1.1, which had none. ``sessions``: how often the run
    was begun, once and with every ``--resume``, all in ``stage_times``. ``importance``, ``operators`` and
    ``preprocessing`` came with schema 1.6, ``curves`` with 1.7, ``stored`` of the quantization with 1.8,
    ``processes`` of latencies with 1.9.
    """

    schema_version: str
    usability: Usability | None = None
    created_utc: str
    model: ModelSection
    calibration: CalibrationSection
    ranking: RankingSection
    pruning: PruningSection
    recovery: RecoverySection
    accuracy_kind: AccuracyKind
    accuracy: tuple[AccuracyFigure, ...]
    parity: tuple[ParityFigure, ...]
    deployment: DeploymentSection
    budget: BudgetSection | None
    stage_times: tuple[StageTime, ...]
    environment: Environment
    notes: tuple[str, ...]
    quantization: QuantizationSection | None = None
    sessions: int = 1
    importance: tuple[GroupImportance, ...] = ()
    operators: OperatorTimes | None = None
    preprocessing: PreprocessingSection | None = None
    curves: RankingCurves | None = None
