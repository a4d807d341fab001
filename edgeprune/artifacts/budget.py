"""Limits on cost and loss of a compressed model, and the candidates of the search for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edgeprune.artifacts.latency import Provenance
from edgeprune.artifacts.quantization import Precision


class Constraint(Enum):
    """What a budget limits."""

    LATENCY = "latency"
    SIZE = "size"
    MEMORY = "memory"
    DROP = "drop"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits that must all hold; ``None`` leaves one out.

    Latency is that of one input on the target, in milliseconds or as a share of the original's.
    ``max_drop_points`` are percentage points of accuracy, or of agreement with the original where there are
    no labels, on images that are kept back.
    """

    max_latency_ms: float | None = None
    max_latency_share: float | None = None
    max_size_bytes: int | None = None
    max_memory_bytes: int | None = None
    max_drop_points: float | None = None

    @property
    def limits_costs(self) -> bool:
        """Whether anything but the drop is limited."""
        costs = (self.max_latency_ms, self.max_latency_share, self.max_size_bytes, self.max_memory_bytes)
        return any(limit is not None for limit in costs)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return not self.limits_costs and self.max_drop_points is None


@dataclass(frozen=True, kw_only=True)
class PairedDrop:
    """What is lost on the held-out images, image by image against the original's answers.

    ``lost`` and ``gained`` count answers, ``None`` where the measure is another one than of class scores.
    ``low_points`` and ``high_points`` are the 95% interval of the drop in percentage points of all images.
    ``confidence`` is the confidence that the true drop is within the limit, ``None`` without a limit;
    ``images_to_decide``: about so many held-out images would settle that by 95%, either way, if shares
    stayed as they are; ``None`` where it is settled, or no reasonable number would.
    """

    images: int
    lost: int | None
    gained: int | None
    low_points: float
    high_points: float
    confidence: float | None
    images_to_decide: int | None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One compressed model that was built and measured.

    ``latency_share`` is latency over the original's: CPU time of interleaved pairs where it is measured, then
    ``latency_share_high`` is the upper end of its 95% interval.
    ``drop_points`` is ``None`` where the costs alone ruled the candidate out; ``paired`` has its interval,
    ``None`` where the measure has none. ``dropped`` are the names of residual blocks that went as
    a whole. ``precision`` is what was tried; ``fewer_bits``: whether anything is stored so, since a mixture
    may have no piece in 8 bits that pays.
    """

    name: str
    macs_share: float
    latency_ms: float
    latency_share: float
    latency_provenance: Provenance
    size_bytes: int
    memory_bytes: int | None
    drop_points: float | None
    exceeded: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    precision: Precision = Precision.FP32
    fewer_bits: bool = False
    latency_share_high: float | None = None
    paired: PairedDrop | None = None


@dataclass(frozen=True, kw_only=True)
class BudgetSection:
    """The budget, every candidate in the order in which they were tried, and which was chosen.

    ``by_default``: nobody asked for the limit, it is that of the default. ``ended_early``: --max-time left no
    time for candidates that would have been tried.
    """

    budget: Budget
    original: Candidate
    candidates: tuple[Candidate, ...]
    chosen: str
    binding: str | None
    drop_of: str
    by_default: bool = False
    ended_early: bool = False
