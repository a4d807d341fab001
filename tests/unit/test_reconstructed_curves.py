"""Removal curves with absent channels reconstructed: what they estimate from, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_project import DIGITS_DATA, DIGITS_MODEL
from torch import nn
from torch.nn import functional

import edgeprune
from edgeprune.artifacts.report import AccuracyKind
from edgeprune.fx import tensor_leaves
from edgeprune.graph.masking import mask_module
from edgeprune.graph.replay import MaskedGame
from edgeprune.graph.statistics import channel_statistics
from edgeprune.graph.surgery import prune
from edgeprune.pipeline import stages
from edgeprune.pipeline.state import CompressOptions, Prepared, Run
from edgeprune.recovery.reconstruction import reconstruct

FILTERS = 6
CLASSES = 4


class Twins(nn.Module):
    """Every filter has a twin that says half of what it says and that ``l1`` therefore lets go first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2 * FILTERS, 3)
        self.head = nn.Linear(2 * FILTERS, CLASSES)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            own = torch.randn((FILTERS, 1, 3, 3), generator=generator)
            own /= own.abs().sum((1, 2, 3), keepdim=True)
            self.first.weight.copy_(torch.cat([own, own / 2]))
            self.first.bias.zero_()
            self.head.weight.copy_(60 * torch.randn((CLASSES, 2 * FILTERS), generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(x)).mean((2, 3)))


class Wide(nn.Module):
    """A linear layer reads more flattened positions than statistics are kept of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 66, 3, padding=1)
        self.head = nn.Linear(66 * 64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(x)).flatten(1))


def images(folder: Path, *, labelled: bool = False, count: int = 80) -> Path:
    drawn = np.random.default_rng(2).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    path = folder / "images.npz"
    labels = {"labels": np.arange(count) % CLASSES} if labelled else {}
    np.savez(path, images=drawn, **labels)
    return path


def prepare(model: nn.Module | str, calibration: Path | str, **options: Any) -> Prepared:
    return stages.prepare(Run(options=CompressOptions(model=model, calibration=calibration, **options)))


def test_twins_are_no_loss_once_they_are_reconstructed(tmp_path: Path) -> None:
    report = edgeprune.rank(Twins(), calibration=images(tmp_path), input_shape=(1, 8, 8), criteria=("l1",))
    removal = report.removal
    assert removal.quality_kind is AccuracyKind.AGREEMENT
    (flat,), (falling,) = removal.reconstructed, removal.masked
    assert [p.removed for p in flat.points] == [p.removed for p in falling.points] == list(range(12))
    base = falling.points[0]
    for point in flat.points[: FILTERS + 1]:
        assert point.quality == 1.0
        assert point.loss == pytest.approx(base.loss, abs=2e-3)
    assert falling.points[FILTERS].loss > base.loss + 0.05
    assert falling.points[FILTERS].quality is not None
    assert falling.points[FILTERS].quality < 1.0
    assert flat.points[FILTERS + 3].loss > base.loss + 0.02, "filters that nobody else can say are missed"
    assert flat.quality_auc is not None
    assert falling.quality_auc is not None
    assert flat.quality_auc > falling.quality_auc + 0.05
    assert flat.loss_auc < falling.loss_auc / 2


def test_estimates_come_from_the_fitting_images_and_are_judged_on_the_others(tmp_path: Path) -> None:
    """The curve is that of statistics of the fitting images; those of the judging ones give another."""
    data = images(tmp_path, labelled=True, count=32)
    model = Twins()
    with torch.no_grad():
        model.first.weight.copy_(torch.randn(model.first.weight.shape))
    report = edgeprune.rank(model, calibration=data, input_shape=(1, 8, 8), criteria=("random",))
    prepared = prepare(model, data, input_shape=(1, 8, 8))
    held, fitting = prepared.calibration.held_out, prepared.calibration.fitting
    (curve,) = report.removal.reconstructed
    found = report.criteria[0].groups[0]
    order = np.argsort(found.ranks_in_network)[::-1]
    with torch.no_grad():
        reference = tensor_leaves(prepared.captured.graph_module(held.images))

    def losses(pixels: torch.Tensor) -> list[float]:
        coupling = prepared.coupling
        statistics = channel_statistics(prepared.captured, coupling, pixels)
        masked = mask_module(prepared.captured, coupling, statistics)
        game = MaskedGame(masked, coupling.num_players, held, reference)
        kept = [np.ones(coupling.num_players, dtype=bool) for _ in curve.points]
        for point, row in zip(curve.points, kept, strict=True):
            row[np.array(prepared.coupling.groups[0].players)[order[: point.removed]]] = False
        return [float(-game.values(row[None]).mean()) for row in kept]

    drawn = [p.loss for p in curve.points]
    assert (report.removal.images, len(held)) == (8, 8)
    assert drawn == pytest.approx(losses(fitting.images), rel=1e-5)
    assert max(np.abs(np.array(drawn) - losses(held.images))) > 1e-2


def test_where_nothing_can_be_estimated_channels_are_masked_and_that_is_said(tmp_path: Path) -> None:
    report = edgeprune.rank(
        Wide(), calibration=images(tmp_path, count=24), input_shape=(1, 8, 8), criteria=("l1",)
    )
    removal = report.removal
    assert (removal.reconstructing_points, removal.mask_points) == (0, 1)
    assert removal.reconstructed == removal.masked
    (note,) = [n for n in report.notes if "reconstructed curves" in n]
    assert note.startswith("1 of 1 mask points mask absent channels in the reconstructed curves, too")
    assert "4,096 channels" in note


def test_with_all_points_reconstructed_there_is_no_note(tmp_path: Path) -> None:
    report = edgeprune.rank(
        Twins(), calibration=images(tmp_path, count=24), input_shape=(1, 8, 8), criteria=("l1",)
    )
    assert (report.removal.reconstructing_points, report.removal.mask_points) == (1, 1)
    assert not [n for n in report.notes if "reconstructed" in n]


def test_the_reconstructed_curve_stands_for_recovery_from_below() -> None:
    """Digits at about half of the MACs: recovery for real keeps more than the estimate, that more than zeros.

    The orders of three criteria, each judged on images that nothing was fitted to; the criterion whose
    estimate is worst is the worst after recovery, too.
    """
    path, _, architecture = DIGITS_MODEL
    criteria = ("hybrid", "l1", "random")
    report = edgeprune.rank(path, calibration=DIGITS_DATA, architecture=architecture, criteria=criteria)
    prepared = prepare(path, DIGITS_DATA, architecture=architecture)
    held, fitting = prepared.calibration.held_out, prepared.calibration.fitting
    assert held.labels is not None
    recovered: dict[str, float] = {}
    estimated: dict[str, float] = {}
    players = [p for g in prepared.coupling.groups for p in g.players]
    for scores, curve, masked in zip(
        report.criteria, report.removal.reconstructed, report.removal.masked, strict=True
    ):
        place = next(i for i, p in enumerate(curve.points) if p.macs_removed_share >= 0.5)
        ranks = np.concatenate([g.ranks_in_network for g in scores.groups])
        # The last of each group stays, so that ranks alone are not the order; far from the end they are.
        leaving = np.array(players)[np.argsort(ranks)[::-1]][: curve.points[place].removed]
        removed = tuple(sorted(leaving.tolist()))
        bare = prune(prepared.captured, prepared.coupling, removed)
        network, _ = reconstruct(
            prepared.captured.graph_module, bare, prepared.coupling, removed, fitting.images,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        with torch.no_grad():
            (scored,) = tensor_leaves(network(held.images))
        recovered[scores.name] = float(functional.cross_entropy(scored, held.labels))
        estimated[scores.name] = curve.points[place].loss
        assert recovered[scores.name] < curve.points[place].loss < masked.points[place].loss
    assert (
        max(recovered, key=lambda n: recovered[n]) == max(estimated, key=lambda n: estimated[n]) == "random"
    )
