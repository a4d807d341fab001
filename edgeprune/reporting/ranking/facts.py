"""Result of ``edgeprune rank``: one report for the JSON file, the table, the plots and the terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeprune.artifacts.model import ModelSection
from edgeprune.artifacts.quality import AccuracyKind, PartialNetwork, RankingCurves, RemovalCurves, SizeCurve
from edgeprune.artifacts.report import CalibrationSection

RANKING_SCHEMA_VERSION = "2.0"


def known(value: float | None) -> float | None:
    """The value, with NaN as ``None``."""
    return None if value is None or math.isnan(value) else value


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """What was asked for; ``layers`` is empty where all were."""

    criteria: tuple[str, ...]
    layers: tuple[str, ...]
    ratio: float
    max_evaluations: int | None
    seed: int
    attention_unit: str
    prune_normalized: bool
    players: str = "channels"
    recover_at: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RankingInputs:
    """Hashes (SHA-256) of what every figure follows from: who uses the ranking must have the same.

    ``network_sha256`` covers the captured graph and every tensor in it, ``fitting_images_sha256`` the
    pixels as the network gets them and the labels, of those images that criteria may use.
    """

    network_sha256: str
    fitting_images_sha256: str


@dataclass(frozen=True, kw_only=True)
class RankedGroup:
    """A coupled group that was ranked; ``channels`` are indices into the outputs of its first layer.

    ``macs_of_channel`` are what the removal of one channel saves while all others are there.
    """

    name: str
    layers: tuple[str, ...]
    consumers: tuple[str, ...]
    channels: tuple[int, ...]
    macs_of_channel: int


@dataclass(frozen=True, kw_only=True)
class GroupScores:
    """One criterion's figures for the channels of a group, in the order of ``RankedGroup.channels``.

    Rank 1 is the last to go: inside the group by removal cost, over the network by removal cost per MAC
    saved, which is what selection goes by. ``standard_errors`` is ``None`` where the criterion has none.
    """

    group: str
    values: tuple[float, ...]
    standard_errors: tuple[float, ...] | None
    removal_costs: tuple[float, ...]
    ranks_in_group: tuple[int, ...]
    ranks_in_network: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CriterionScores:
    """What one criterion says, how it found out and what that took."""

    name: str
    summary: str
    choice: str
    evaluations: int
    images: int
    notes: tuple[str, ...]
    groups: tuple[GroupScores, ...]


@dataclass(frozen=True, kw_only=True)
class BlockValue:
    """A residual block and its value."""

    name: str
    addition: str
    value: float
    standard_error: float
    rank: int


@dataclass(frozen=True, kw_only=True)
class BlockScore(PartialNetwork, BlockValue):
    """A residual block: its value, and quality and loss on the held-out images when its branch adds nothing.

    ``addition`` is the node of the captured graph where branch and shortcut meet. ``standard_error`` is that
    of the drawing of coalitions. ``quality`` is ``None`` where the outputs are no class scores; its interval
    is 95% (Wilson).
    """


@dataclass(frozen=True, kw_only=True)
class BlockRanking:
    """Residual blocks as players of one game, in graph order; their values add up to whole less empty.

    ``quality`` and ``loss`` are those of the whole network on the ``held_out_images``.
    """

    choice: str
    evaluations: int
    images: int
    empty_value: float
    whole_value: float
    quality_kind: AccuracyKind
    held_out_images: int
    quality: float | None
    loss: float
    blocks: tuple[BlockScore, ...]


@dataclass(frozen=True, kw_only=True)
class RankingReport:
    """All figures of ``edgeprune rank``.

    Where blocks were ranked, ``groups``, ``criteria``, ``coalition_sizes`` and the removal curves are empty;
    where channels were, ``blocks`` is ``None``.
    ``loss`` says what v(S) is minus of; ``macs`` are those of the whole network for one image. Of the same
    seed, machine and versions everything but ``durations_s`` is equal.
    """

    schema_version: str
    model: ModelSection
    calibration: CalibrationSection
    settings: RankSettings
    inputs: RankingInputs
    loss: str
    macs: int
    players: int
    groups: tuple[RankedGroup, ...]
    criteria: tuple[CriterionScores, ...]
    coalition_sizes: tuple[SizeCurve, ...]
    removal: RemovalCurves
    versions: dict[str, str]
    notes: tuple[str, ...]
    durations_s: dict[str, float]
    blocks: BlockRanking | None = None

    @property
    def curves(self) -> RankingCurves:
        """What charts show of the games."""
        return RankingCurves(
            loss=self.loss,
            layers=self.settings.layers,
            coalition_sizes=self.coalition_sizes,
            removal=self.removal,
        )
