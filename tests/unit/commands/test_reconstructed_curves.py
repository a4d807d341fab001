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
from edgeprune.artifacts.choices import RankedPlayers
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.commands.run import stages
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.errors import UsageError
from edgeprune.fx import tensor_leaves
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.games.masked_game import MaskedGame
from edgeprune.options.runs import CompressOptions
from edgeprune.pruning.masking import mask_module
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.recovery.splitting import split_images

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
    """A linear layer reads more channels than statistics are kept of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4100, 1)
        self.head = nn.Linear(4100, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(x)).mean((2, 3)))


def images(folder: Path, *, labelled: bool = False, count: int = 80) -> Path:
    drawn = np.random.default_rng(2).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    path = folder / "images.npz"
    labels = {"labels": np.arange(count) % CLASSES} if labelled else {}
    np.savez(path, images=drawn, **labels)
    return path


def prepare(model: nn.Module | str, calibration: Path | str, **options: Any) -> Prepared:
    return stages.prepare(Run(options=CompressOptions(model=model, calibration=calibration, **options)))


def test_twins_are_no_loss_once_they_are_reconstructed(tmp_path: Path) -> None:
    # From few images a twin cannot be told from chance strongly enough: covariances are shrunk.
    drawn = images(tmp_path, count=600)
    report = edgeprune.rank(Twins(), calibration=drawn, input_shape=(1, 8, 8), criteria=("l1",))
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


@pytest.mark.wide
def test_the_reconstructed_curve_stands_for_recovery_from_below() -> None:
    """Digits without four fifths of the MACs: recovery keeps more than either estimate.

    The reconstruction puts criteria in the order of their recovered networks.
    """
    path, _, architecture = DIGITS_MODEL
    report = edgeprune.rank(
        path,
        calibration=DIGITS_DATA,
        arch=architecture,
        criteria=("hybrid", "l1", "random"),
        recover_at=(0.8,),
    )
    removal = report.removal
    estimated: dict[str, float] = {}
    for curve, masked, networks in zip(removal.reconstructed, removal.masked, removal.recovered, strict=True):
        assert networks.criterion == curve.criterion
        for cut, network in zip(report.settings.recover_at, networks.points, strict=True):
            assert cut <= network.macs_removed_share < cut + 0.02
            place = next(i for i, p in enumerate(curve.points) if p.removed >= network.removed)
            assert network.loss < min(curve.points[place].loss, masked.points[place].loss)
            estimated[curve.criterion] = curve.points[place].loss
    recovered = {r.criterion: r.points[-1].loss for r in removal.recovered}
    assert sorted(recovered, key=lambda n: recovered[n]) == sorted(estimated, key=lambda n: estimated[n])
    assert min(recovered, key=lambda n: recovered[n]) == "hybrid"


def test_a_recovered_network_is_judged_on_images_that_it_was_not_fitted_to(tmp_path: Path) -> None:
    data = images(tmp_path, labelled=True, count=120)
    model = Twins()
    with torch.no_grad():  # without twins, so that rounding does not decide between equals
        model.first.weight.copy_(torch.randn(model.first.weight.shape))
        model.head.weight.div_(60)
    report = edgeprune.rank(
        model, calibration=data, input_shape=(1, 8, 8), criteria=("l1",), recover_at=(0.4, 0.4)
    )
    ((network,),) = (r.points for r in report.removal.recovered)
    prepared = prepare(model, data, input_shape=(1, 8, 8))
    held, coupling = prepared.calibration.held_out, prepared.coupling
    ranks = report.criteria[0].groups[0].ranks_in_network
    players = np.array(coupling.groups[0].players)
    removed = tuple(sorted(players[np.argsort(ranks)[::-1][: network.removed]].tolist()))
    assert network.removed == 5, "the fewest of twelve filters that are two fifths"

    def judged(pixels: torch.Tensor) -> tuple[float, float]:
        recovered, _ = reconstruct(
            prepared.captured.graph_module,
            prune(prepared.captured, coupling, removed),
            coupling,
            removed,
            split_images(pixels, torch.Generator().manual_seed(0)),
            generator=torch.Generator().manual_seed(0),
        )
        with torch.no_grad():
            (scores,) = tensor_leaves(recovered(held.images))
        assert held.labels is not None
        hits = (scores.argmax(1) == held.labels).double().mean()
        return float(functional.cross_entropy(scores, held.labels)), float(hits)

    loss, quality = judged(prepared.calibration.fitting.images)
    assert (network.loss, network.quality) == (pytest.approx(loss, rel=1e-5), quality)
    assert abs(network.loss - judged(held.images)[0]) > 1e-4 * loss, "fitted to the others"


@pytest.mark.parametrize(
    ("share", "part"),
    [
        (0.0, "--recover-at 0 was given; accepted"),
        (1.0, "between 0 and 1"),
        (0.99, "0.917 of the MACs are gone"),
    ],
)
def test_shares_that_cannot_be_removed(share: float, part: str, tmp_path: Path) -> None:
    data = images(tmp_path, count=24)
    with pytest.raises(UsageError) as caught:
        edgeprune.rank(
            Twins(), calibration=data, input_shape=(1, 8, 8), criteria=("l1",), recover_at=(0.2, share)
        )
    assert part in str(caught.value)


def test_blocks_are_not_recovered(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--recover-at, which is of channels"):
        edgeprune.rank(Twins(), calibration=images(tmp_path), players=RankedPlayers.BLOCKS, recover_at=(0.2,))
