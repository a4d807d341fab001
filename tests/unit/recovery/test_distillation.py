"""Distillation learns from the original, keeps what is best on unseen images, and repeats exactly."""

from __future__ import annotations

import copy
import itertools

import networks as nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recovery import Trial, trial
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.choices import Finetune
from edgeprune.errors import UsageError
from edgeprune.options.quantities import parse_finetune
from edgeprune.outputs.errors import OutputErrors
from edgeprune.recovery.distillation.augmentation import pasted, varied
from edgeprune.recovery.distillation.features import EVEN_SHARE, learnt_features, run, run_weighed
from edgeprune.recovery.distillation.training import DistillationOptions, distill

IMAGES = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SHORT = DistillationOptions(steps=40, batch=32, learning_rates=(3e-3, 3e-4), checks=5)


def taught(case: Trial, options: DistillationOptions = SHORT, *, seed: int = 0, **more):
    return distill(
        case.captured.graph_module, case.pruned, case.coupling, case.removed,
        nets.split(IMAGES),
        generator=torch.Generator().manual_seed(seed), options=options, **more,
    )  # fmt: skip


def features_of(case: Trial, *, class_scores: bool) -> dict[str, torch.Tensor]:
    graph = case.captured.graph_module
    return learnt_features(graph, case.coupling, case.removed, class_scores=class_scores)


@pytest.mark.parametrize("factory", [nets.residual_add, nets.two_outputs])
def test_a_pruned_network_comes_nearer_on_images_that_it_never_saw(factory):
    case = trial(factory(), IMAGES)
    before = {k: v.clone() for k, v in case.pruned.state_dict().items()}
    network, report = taught(case)
    assert report.divergence_after < 0.8 * report.divergence_before
    assert report.kept_step > 0
    learnt = features_of(case, class_scores=factory is nets.residual_add)
    assert report.feature == ", ".join(learnt)
    assert (report.steps, report.images, report.validation_images) == (40, 160, 40)
    assert report.learning_rate in SHORT.learning_rates
    assert report.decision is not None
    assert report.decision.taken
    assert all(torch.equal(before[k], v) for k, v in case.pruned.state_dict().items())
    assert not any(p.requires_grad for p in network.parameters())


def test_the_same_seed_gives_the_same_weights():
    case = trial(nets.residual_add(), IMAGES)
    first, again, other = (taught(case, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@given(st.integers(0, 10_000), st.sampled_from([1e-7, 1e-4, 1.0, 100.0]))
@settings(max_examples=6, deadline=None)
def test_a_network_that_answers_as_the_original_does_has_nothing_to_learn(seed, scale):
    """Rounding gave it a divergence below zero, and no trial came within two per cent of that."""
    images = scale * torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    case = trial(nets.residual_add(), images)
    same = copy.deepcopy(case.captured.graph_module)
    with torch.no_grad():
        for parameter in same.parameters():
            parameter.mul_(1 + 1e-6)
    few = DistillationOptions(steps=4, batch=8, learning_rates=(1e-9, 1e-10), checks=2)
    network, report = distill(
        case.captured.graph_module, same, case.coupling, (), nets.split(images),
        generator=torch.Generator().manual_seed(seed), options=few,
    )  # fmt: skip
    assert 0.0 <= report.divergence_after <= report.divergence_before < 1e-5
    assert all(torch.allclose(a, b) for a, b in zip(network.parameters(), same.parameters(), strict=True))


def test_training_that_only_harms_is_thrown_away():
    case = trial(nets.residual_add(), IMAGES)
    wild = DistillationOptions(steps=6, batch=16, learning_rates=(5e4,), checks=3)
    network, report = taught(case, wild)
    assert report.kept_step == 0
    assert report.divergence_after == report.divergence_before
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in case.pruned.state_dict().items())


def test_a_time_limit_ends_training():
    case = trial(nets.residual_add(), IMAGES)
    _, report = taught(case, DistillationOptions(steps=100_000, batch=8, time_limit_s=0.5))
    assert 0 < report.steps < 100_000


def test_a_time_limit_counts_the_seconds_of_the_clock_that_is_passed():
    case, seconds = trial(nets.residual_add(), IMAGES), itertools.count()
    options = DistillationOptions(steps=100_000, batch=8, time_limit_s=60)
    _, report = taught(case, options, clock=lambda: float(next(seconds)))
    assert 0 < report.steps < 60
    assert report.duration_s >= 60


def test_features_are_those_before_pooling_and_only_the_channels_that_stay():
    case = trial(nets.residual_add(), IMAGES)
    ((name, kept),) = features_of(case, class_scores=True).items()
    value = next(n for n in case.captured.graph_module.graph.nodes if n.name == name).meta["val"]
    assert value.dim() == 4
    gone = set(case.removed)
    players = case.coupling.layers[-1].in_players
    assert kept.tolist() == [i for i, p in enumerate(players) if p not in gone]


def test_without_a_last_layer_of_channels_only_answers_are_learnt():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))
    case = trial(network, IMAGES)
    assert not features_of(case, class_scores=True) or case.coupling.layers[-1].in_players.size == 216
    _, report = taught(case)
    assert report.divergence_after <= report.divergence_before


@given(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.125, 0.3]))
@settings(max_examples=20, deadline=None)
def test_varied_images_are_shifted_and_mirrored_copies(seed: int, share: float):
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(4, 2, 8, 6, generator=rng)
    found = varied(images, share, rng)
    assert found.shape == images.shape
    high, wide = round(share * 8), round(share * 6)
    for image, result in zip(images, found, strict=True):
        assert any(torch.equal(result, crop) for crop in crops(image, high, wide))


def crops(image: Tensor, high: int, wide: int) -> list[Tensor]:
    """Every shift of an image and of its mirror image, edges repeated."""
    found = []
    for way in (image, image.flip(-1)):
        padded = functional.pad(way[None], (wide, wide, high, high), mode="replicate")[0]
        found += [
            padded[:, top : top + 8, left : left + 6]
            for top in range(2 * high + 1)
            for left in range(2 * wide + 1)
        ]
    return found


@given(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.3, 1.0]), size=st.sampled_from([1, 4, 9]))
@settings(max_examples=40, deadline=None)
def test_what_is_pasted_is_a_rectangle_of_one_other_image(seed: int, share: float, size: int) -> None:
    """Images of one number each show who is where."""
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 2, size, size + 2).contiguous()
    found = pasted(images, share, torch.Generator().manual_seed(seed))
    again = pasted(images, share, torch.Generator().manual_seed(seed))
    assert torch.equal(found, again)
    for number, image in enumerate(found):
        assert torch.equal(image[0], image[1]), "all colours of a piece come together"
        foreign = image[0] != number
        if number >= round(share * 8):
            assert not foreign.any()
        assert len(image[foreign.expand(2, -1, -1)].unique()) <= 1
        rows, columns = foreign.any(1), foreign.any(0)
        assert torch.equal(foreign, rows[:, None] & columns[None, :])
        if size > 1:
            assert rows.sum() <= 0.75 * size
            assert columns.sum() <= 0.75 * (size + 2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("250", Finetune(steps=250)),
        ("60s", Finetune(time_limit_s=60.0)),
        (" 1.5 min", Finetune(time_limit_s=90.0)),
        ("1h", Finetune(time_limit_s=3600.0)),
    ],
)
def test_training_is_asked_for_in_steps_or_time(text, found):
    assert parse_finetune(text, option="--finetune") == found


@pytest.mark.parametrize("text", ["0", "2.5", "-3", "10ms", "soon", ""])
def test_what_is_neither_is_refused(text):
    with pytest.raises(UsageError, match=r"--finetune .* was given; accepted are steps"):
        parse_finetune(text, option="--finetune")


class HalfSeen(nn.Module):
    """Two heads on one trunk; of the maps that they read only the upper half reaches an output."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.boxes = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))
        self.scores = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.trunk(x)
        return torch.cat([100 * self.boxes(maps), self.scores(maps)], 1)[:, :, :4].flatten(2)


def test_the_heads_of_other_outputs_are_learnt_where_they_move_them():
    torch.manual_seed(0)
    case = trial(HalfSeen(), IMAGES)
    graph = case.captured.graph_module
    learnt = features_of(case, class_scores=False)
    assert [len(kept) < 6 for kept in learnt.values()] == [True, True]
    wanted = OutputErrors([graph(IMAGES[:40])])
    answers = run_weighed(graph, IMAGES[:8], learnt, wanted, torch.Generator().manual_seed(0))
    plain = run(graph, IMAGES[:8], learnt)
    assert torch.equal(answers.outputs[0], plain.outputs[0])
    for name in learnt:
        assert torch.equal(answers.features[name], plain.features[name])
        weights = answers.weights[name]
        assert float(weights.mean()) == pytest.approx(1.0, rel=1e-4)
        assert torch.equal(weights[:, :, 4:], torch.full_like(weights[:, :, 4:], EVEN_SHARE))
        assert (weights[:, :, :4] > EVEN_SHARE).float().mean() > 0.5
    network, report = taught(case)
    assert report.feature == ", ".join(learnt)
    assert report.divergence_after < report.divergence_before
    assert network is not None


def test_class_scores_weigh_all_positions_alike():
    case = trial(nets.residual_add(), IMAGES)
    learnt = features_of(case, class_scores=True)
    assert not run(case.captured.graph_module, IMAGES[:4], learnt).weights
