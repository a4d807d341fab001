"""No recovery delivers a network that is worse on images that it did not see, beyond chance."""

from __future__ import annotations

import networks as nets
import pytest
import torch
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_recovery import Trial, trial
from torch import Tensor, nn

from edgeprune.artifacts.pruning import DecisionMeasure
from edgeprune.recovery.agreement import Proof, decide_between, in_words, signed_rank_score
from edgeprune.recovery.distillation.training import DistillationOptions, distill
from edgeprune.recovery.reconstruction import reconstruct


class ManyClasses(nn.Module):
    """A mobile network in small: a thousand classes, more inputs of the classifier than images."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nets.conv_bn(3, 16)
        self.depthwise = nets.conv_bn(16, 16, groups=16)
        self.wide = nn.Sequential(nn.Conv2d(16, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU6())
        self.classifier = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of all classes."""
        return self.classifier(self.wide(self.depthwise(self.stem(x))).mean((2, 3)))


FACTORIES = [
    nets.chain, nets.chain_without_norm, nets.residual_add, nets.concat_flatten_linear, nets.depthwise,
    nets.grouped_convolution, nets.squeeze_excitation, nets.two_outputs, ManyClasses,
]  # fmt: skip


def smooth_noise(count: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=rng)
    return nn.functional.interpolate(coarse, size=8, mode="bilinear")


def recovered(case: Trial, images: Tensor, seed: int = 0):
    return reconstruct(
        case.captured.graph_module, case.pruned, case.coupling, case.removed, nets.split(images, seed),
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def on_unseen(case: Trial, network: nn.Module, unseen: Tensor, step: str = "recovery"):
    """Whether a network is nearer to the original than the pruned one on images that nobody saw."""
    with torch.no_grad():
        outputs = [
            o if isinstance(o, (tuple, list)) else [o]
            for o in (m(unseen) for m in (case.captured.graph_module, case.pruned, network))
        ]
    return decide_between(step, *(list(o) for o in outputs))


@given(
    factory=st.sampled_from(FACTORIES),
    count=st.sampled_from([20, 40, 80]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=examples(25), deadline=None)
def test_never_worse_on_unseen_images_beyond_chance(factory, count, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        case = trial(factory(), smooth_noise(count, seed))
    network, _ = recovered(case, case.images, seed)
    found = on_unseen(case, network, smooth_noise(400, seed + 1))
    assert found.difference <= 4 * found.standard_error


@pytest.mark.parametrize("count", [8, *(pytest.param(count, marks=pytest.mark.wide) for count in (2, 3, 5))])
def test_a_handful_of_images_seldom_harms_and_helps_on_the_whole(count):
    """One to four images decide, which can be wrong about four hundred others, but not often."""
    harmed, change = 0, 0.0
    for seed, factory in enumerate(FACTORIES):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            case = trial(factory(), smooth_noise(count, seed))
        network, _ = recovered(case, case.images, seed)
        found = on_unseen(case, network, smooth_noise(400, seed + 100))
        harmed += found.difference > 4 * found.standard_error
        change += found.difference / max(found.before, 1e-9)
    assert harmed <= 1
    assert change <= 0.0


def test_eight_images_and_a_thousand_classes_with_more_inputs_than_images():
    images = smooth_noise(8, 0)
    case = trial(ManyClasses(), images)
    network, report = recovered(case, images)
    assert (report.images, report.deciding_images) == (4, 4)
    found = on_unseen(case, network, smooth_noise(400, 1))
    assert found.difference <= 2 * found.standard_error
    assert report.steps[-1].layer == "classifier"
    assert report.steps[-1].error_after <= report.steps[-1].error_before


@pytest.mark.parametrize("level", [0.0, 1.0, -3.0])
def test_constant_images_teach_nothing_and_do_no_harm(level):
    images = torch.full((40, *nets.IMAGE), level)
    case = trial(ManyClasses(), images)
    network, _ = recovered(case, images)
    assert all(torch.isfinite(v).all() for v in network.state_dict().values())
    # All decisions are about one image, so that others may become worse, but not beyond measure.
    found = on_unseen(case, network, smooth_noise(200, 1))
    assert found.after < 2 * found.before + 0.05


def test_a_single_image_decides_nothing_and_it_says_so():
    case = trial(nets.chain(), smooth_noise(1, 0))
    network, report = recovered(case, case.images)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in case.pruned.state_dict().items())
    assert report.decision is None
    assert "none to decide" in report.notes[-1]


def test_a_recovery_that_harms_as_a_whole_is_not_delivered(monkeypatch, caplog):
    """Every layer is said to be better, the network is not: the pruned one is delivered, and it is said."""
    case = trial(nets.residual_add(), smooth_noise(60, 0))

    def ruined(*args: object, **kwargs: object) -> None:
        module = args[0]
        for parameter in module.parameters():
            parameter.data.add_(3.0)

    monkeypatch.setattr("edgeprune.recovery.solving.layers.write_solution", ruined)
    with caplog.at_level("WARNING", logger="edgeprune.recovery"):
        network, report = recovered(case, case.images)
    assert report.decision is not None
    assert not report.decision.taken
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in case.pruned.state_dict().items())
    assert "recovery did not help" in report.notes[-1]
    assert "recovery did not help" in caplog.text


@pytest.mark.parametrize("rates", [(1e3,), (0.0,)])
def test_training_that_does_not_help_gives_back_what_it_was_given(rates):
    images = smooth_noise(60, 0)
    case = trial(nets.residual_add(), images)
    network, report = distill(
        case.captured.graph_module, case.pruned, case.coupling, case.removed, nets.split(images),
        generator=torch.Generator().manual_seed(0),
        options=DistillationOptions(steps=5, batch=8, learning_rates=rates),
    )  # fmt: skip
    assert report.kept_step == 0
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in case.pruned.state_dict().items())


@given(count=st.integers(1, 400), seed=st.integers(0, 100))
def test_images_are_of_one_kind_and_a_second_split_leaves_the_deciding_ones_alone(count, seed):
    images = torch.zeros(count, 1)
    first = nets.split(images, seed)
    assert sorted([*first.fitting.tolist(), *first.deciding.tolist()]) == list(range(count))
    assert len(first.fitting) >= len(first.deciding)
    second = first.without_deciding(torch.Generator().manual_seed(seed))
    assert sorted([*second.fitting.tolist(), *second.deciding.tolist()]) == first.fitting.tolist()
    assert not set(second.deciding.tolist()) & set(first.deciding.tolist())


def scores(count: int, classes: int, seed: int) -> Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


def test_networks_are_told_apart_by_answers_first_then_by_divergence():
    original = scores(200, 10, 0)
    near, far = original + 0.5 * scores(200, 10, 1), original + 3 * scores(200, 10, 2)
    found = decide_between("recovery", [original], [far], [near])
    assert (found.measure, found.taken, found.beyond_chance) == (DecisionMeasure.CHANGED_ANSWERS, True, True)
    back = decide_between("recovery", [original], [near], [far])
    assert (back.taken, back.beyond_chance, back.difference) == (False, True, -found.difference)
    same_answers = decide_between("recovery", [original], [2 * original], [1.1 * original])
    assert (same_answers.measure, same_answers.taken) == (DecisionMeasure.DIVERGENCE, True)
    maps = decide_between(
        "recovery", [original.view(200, 1, 10)], [far.view(200, 1, 10)], [near.view(200, 1, 10)]
    )
    assert (maps.measure, maps.taken) == (DecisionMeasure.RELATIVE_ERROR, True)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_network_of_nan_is_never_taken(count):
    original = scores(count, 5, 0)
    broken = torch.full_like(original, float("nan"))
    assert not decide_between("recovery", [original], [original + 0.1], [broken]).taken
    assert not decide_between("recovery", [original.view(count, 5, 1)], [original.view(count, 5, 1)], [
        broken.view(count, 5, 1)
    ]).taken  # fmt: skip


def test_nothing_that_changes_nothing_is_taken_for_an_improvement():
    original = scores(20, 5, 0)
    found = decide_between("recovery", [original], [original], [original])
    assert not found.taken
    assert not found.beyond_chance


def test_channels_that_nothing_depends_on_leave_nothing_to_gain():
    scores = torch.randn(20, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(20, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    free = decide_between("recovery", [scores], [scores + 1e-6 * noise], [scores + 1e-4 * noise])
    assert not free.taken
    assert "nothing to gain" in in_words(free)
    harmed = decide_between("recovery", [scores], [scores + 0.1 * noise], [scores + 2.0 * noise])
    assert not harmed.taken
    assert "did not help" in in_words(harmed)


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_the_best_of_several_that_are_all_alike_is_not_an_improvement(kind):
    """Ten networks as far from the original as the one before: the best of them here is so by its luck."""
    luck, kept, alone = 0, 0, 0
    for seed in range(60):
        rng = torch.Generator().manual_seed(seed)
        original = torch.randn(40, 6, dtype=torch.float64, generator=rng)

        def off(rng=rng, original=original) -> Tensor:
            return original + 0.3 * torch.randn(original.shape, dtype=torch.float64, generator=rng)

        def decided(after, *, before, original=original, proof=Proof.BEST_OF_SEVERAL):
            classes = kind == "classes"
            return decide_between("training", [original], [before], [after], class_scores=classes,
                                  proof=proof)  # fmt: skip

        before, tried = off(), [off() for _ in range(10)]
        best = min(tried, key=lambda after: (after - original).square().mean())
        luck += decided(best, proof=Proof.AVERAGE, before=before).taken
        found = decided(best, before=before)
        alone += decided(tried[0], proof=Proof.BEYOND_CHANCE, before=before).taken
        kept += found.taken
        assert found.taken <= found.beyond_chance
        if not found.taken and not found.beyond_chance and found.difference < 0:
            assert "no more than chance" in in_words(found)
        better = original + 0.5 * (before - original)
        assert decided(better, before=before).taken
        assert decided(better, proof=Proof.BEYOND_CHANCE, before=before).taken
    assert luck > 40
    assert kept < 15
    assert alone < 9


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=40))
def test_signed_ranks_are_those_of_scipy(differences):
    score = signed_rank_score(torch.tensor(differences))
    if not any(differences):
        assert score == 0.0
        return
    found = stats.wilcoxon(differences, method="asymptotic", correction=False, alternative="greater")
    assert score == pytest.approx(found.zstatistic)


def test_many_small_gains_show_where_a_few_images_make_most_of_the_mean():
    """Of 100 images 80 come much nearer; five are so far off that their noise hides the mean."""
    rng = torch.Generator().manual_seed(0)
    original = torch.zeros(100, 6, dtype=torch.float64)
    error = 0.2 * torch.randn(100, 6, dtype=torch.float64, generator=rng)
    error[:5] *= 30
    after = 0.6 * error
    after[:5] = error[:5] + torch.randn(5, 6, dtype=torch.float64, generator=rng)
    after[0] = 0.9 * error[0]

    def decided(before, after):
        return decide_between("training", [original], [before], [after], class_scores=False,
                              proof=Proof.BEST_OF_SEVERAL)  # fmt: skip

    found = decided(error, after)
    assert abs(found.difference) < 2 * found.standard_error
    assert found.taken is (found.difference < 0)
    assert found.difference < 0
    worse = decided(after, error)
    assert not worse.taken
    assert worse.beyond_chance
