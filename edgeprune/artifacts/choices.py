"""Choices of the user; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

HOST = "host"
"""Name of the target that is the local machine."""
DEFAULT_CRITERION = "hybrid"
GAME_MEMORY_BYTES = 2**30
"""Memory for activations in games of single layers and of blocks."""


class AttentionUnit(Enum):
    """What leaves an attention layer: channels of every head in step, or whole heads."""

    HEAD_DIMENSIONS = "head-dimensions"
    HEADS = "heads"


class RankedPlayers(Enum):
    """What ``rank`` values: channels with all that leaves with them, or residual blocks."""

    CHANNELS = "channels"
    BLOCKS = "blocks"


class Effort(Enum):
    """How much work a run puts into passes, images, rounds and training."""

    QUICK = "quick"
    NORMAL = "normal"
    THOROUGH = "thorough"


class Task(Enum):
    """What a network is for, which decides how its quality is measured; ``AUTO``: by the outputs' shapes."""

    AUTO = "auto"
    CLASSIFICATION = "classification"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    REGRESSION = "regression"
    EMBEDDING = "embedding"


class BoxFormat(Enum):
    """Four numbers of a box: two corners, or centre and size; and whether an objectness precedes the class
    scores."""

    XYXY = "xyxy"
    XYWH = "xywh"
    XYXY_OBJECTNESS = "xyxy-objectness"
    XYWH_OBJECTNESS = "xywh-objectness"


class ComputeDevice(Enum):
    """Where networks run while they are ranked, recovered and trained.

    ``AUTO``: on a CUDA GPU if there is one. ``MPS``: a GPU of Apple's, only where it is named.
    """

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class ExecutorKind(Enum):
    """Where units of work run: in processes of this machine, or on a cluster of Ray."""

    LOCAL = "local"
    RAY = "ray"


class JsonDocument(Enum):
    """A file that edgeprune writes for other programs, and the profile of a target, which it reads."""

    REPORT = "report"
    RANKING = "ranking"
    MANIFEST = "manifest"
    SWEEP = "sweep"
    TARGET = "target"


@dataclass(frozen=True, kw_only=True)
class CouplingOptions:
    """Choices of the analysis.

    ``prune_normalized`` lets channels go that a layer norm (or RMS norm, or group norm of one group) takes
    its statistics over: what stays is then normalised over fewer channels than in training.
    """

    attention: AttentionUnit = AttentionUnit.HEAD_DIMENSIONS
    prune_normalized: bool = False


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """How long to train after recovery: so many steps, or for a time."""

    steps: int | None = None
    time_limit_s: float | None = None
