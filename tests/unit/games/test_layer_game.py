"""Games over one layer: the values of the whole masked network, with its first part computed once."""

from __future__ import annotations

from collections.abc import Callable

import networks as nets
import numpy as np
import pytest
import torch
from networks import Case, Network, conv_bn, head
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import CouplingOptions
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.errors import UsageError
from edgeprune.fx import tensor_leaves
from edgeprune.games.layer_game import LayerGame
from edgeprune.games.losses import ImageLoss, LossKind
from edgeprune.games.masked_game import MaskedGame
from edgeprune.pruning.masking import mask_module
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.shapley.game import all_coalitions
from edgeprune.shapley.subgame import SubGame

IMAGES = 7
FACTORIES = [
    nets.chain,
    nets.residual_add,
    nets.padded_shortcut,
    nets.concat_flatten_linear,
    nets.squeeze_excitation,
    nets.channel_shuffle,
    nets.tokens,
    nets.used_twice,
    nets.two_outputs,
]


class Convolutions(TorchDispatchMode):
    """Rows that convolutions saw, by their number of output channels."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, list[int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.rows.setdefault(len(args[1]), []).append(len(args[0]))
        return func(*args, **(kwargs or {}))


def batch_of(case: Case, images: int = IMAGES, *, labelled: bool = True) -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, *case.images.shape[1:], dtype=torch.float64, generator=generator)
    return ImageBatch(images=pixels, labels=torch.arange(images) % 5 if labelled else None)


def game_pair(
    case: Case, players: tuple[int, ...], *, images: int = IMAGES, labelled: bool = True, **options: int
) -> tuple[SubGame, LayerGame]:
    """The players' game by the whole masked network, and by its last part."""
    batch = batch_of(case, images, labelled=labelled)
    with torch.no_grad():
        reference = tensor_leaves(case.captured.graph_module(batch.images))
    masked = mask_module(case.captured, case.coupling)
    whole = MaskedGame(masked, case.coupling.num_players, batch, reference)
    layer = LayerGame(case.captured, case.coupling, players, batch, reference, **options)
    return SubGame(whole, np.array(players)), layer


def some_coalitions(players: int, count: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    drawn = rng.random((count, players)) < 0.6
    return np.concatenate([drawn, np.zeros((1, players), bool), np.ones((1, players), bool)])


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__)
def test_values_are_those_of_the_whole_masked_network(factory: Callable[[], nn.Module]) -> None:
    case = nets.toy(factory)
    for group in case.coupling.groups:
        whole, layer = game_pair(case, group.players)
        coalitions = some_coalitions(len(group.players))
        expected = whole.values(coalitions)
        np.testing.assert_allclose(layer.values(coalitions), expected, atol=1e-10)
        assert np.ptp(expected, axis=0).max() > 1e-3


def test_players_can_be_any_of_any_groups_in_any_order() -> None:
    case = nets.toy(nets.padded_shortcut)
    first, second = case.coupling.groups[0].players, case.coupling.groups[1].players
    whole, layer = game_pair(case, (second[1], first[2], first[0]))
    np.testing.assert_allclose(layer.values(all_coalitions(3)), whole.values(all_coalitions(3)), atol=1e-10)


def test_norms_over_present_channels_are_replayed() -> None:
    torch.manual_seed(0)
    build = Network(
        lambda m, x: m.out(functional.gelu(m.norm(m.stem(x).flatten(2).transpose(1, 2))).mean(1)),
        stem=conv_bn(3, 8),
        norm=nn.LayerNorm(8),
        out=nn.Linear(8, 5),
    )
    case = nets.make_case(build, options=CouplingOptions(prune_normalized=True))
    assert any(p.renormalises for p in case.coupling.mask_points)
    for group in case.coupling.groups:
        whole, layer = game_pair(case, group.players)
        coalitions = some_coalitions(len(group.players))
        np.testing.assert_allclose(layer.values(coalitions), whole.values(coalitions), atol=1e-10)


@pytest.mark.parametrize(
    ("factory", "labelled", "kind"),
    [
        (nets.chain, True, LossKind.LABELS),
        (nets.chain, False, LossKind.PSEUDO_LABELS),
        (nets.two_outputs, False, LossKind.OUTPUTS),
    ],
)
def test_loss_is_that_of_the_masked_game(
    factory: Callable[[], nn.Module], labelled: bool, kind: LossKind
) -> None:
    case = nets.toy(factory)
    whole, layer = game_pair(case, case.coupling.groups[0].players, labelled=labelled)
    assert layer.loss_kind is kind
    assert layer.loss_description == kind.value
    coalitions = some_coalitions(layer.num_players)
    np.testing.assert_allclose(layer.values(coalitions), whole.values(coalitions), atol=1e-10)


def test_loss_is_the_cross_entropy_on_sure_and_on_wrong_images_too() -> None:
    scores = torch.tensor([[12.0, 0.0, 1.0], [0.0, 40.0, -40.0], [0.3, 0.2, 0.1]])
    labels = torch.tensor([0, 2, 1])
    loss = ImageLoss(ImageBatch(images=torch.zeros(3, 1), labels=labels), [scores])
    rows = torch.tensor([2, 0, 1, 0])
    expected = functional.cross_entropy(scores[rows].double(), labels[rows], reduction="none")
    torch.testing.assert_close(loss([scores[rows]], rows).double(), expected, atol=1e-7, rtol=1e-6)


def test_what_comes_before_the_masks_runs_once() -> None:
    case = nets.toy(nets.chain)
    _, layer = game_pair(case, case.coupling.groups[0].players, images=20)
    with Convolutions() as seen:
        layer.values(some_coalitions(8, 30))
        layer.values(some_coalitions(8, 10))
    assert seen.rows[8] == [20]
    assert sum(seen.rows[6]) == 20 * (32 + 12)
    assert len(seen.rows[6]) == 2, "all coalitions of a call fit one pass"


def test_nothing_is_replayed_behind_a_linear_suffix() -> None:
    case = nets.toy(nets.chain)
    _, layer = game_pair(case, case.coupling.groups[1].players, images=20)
    assert layer.is_linear
    with Convolutions() as seen:
        layer.values(all_coalitions(6))
        layer.values(all_coalitions(6))
    assert seen.rows == {8: [20], 6: [20]}


def test_memory_limit_bounds_the_rows_of_a_pass() -> None:
    case = nets.toy(nets.chain)
    players = case.coupling.groups[0].players
    whole, free = game_pair(case, players, images=20)
    _, tight = game_pair(case, players, images=20, memory_limit_bytes=100_000)
    coalitions = some_coalitions(len(players))
    expected = whole.values(coalitions)
    with Convolutions() as seen:
        np.testing.assert_allclose(tight.values(coalitions), expected, atol=1e-10)
    # Eight channels of 8 x 8 doubles are 4,096 bytes: the limit cannot hold 24 of them.
    assert max(r for rows in seen.rows.values() for r in rows) <= tight.rows_at_once < 24 < free.rows_at_once


def test_memory_limit_bounds_a_linear_game_too() -> None:
    case = nets.toy(nets.chain)
    players = case.coupling.groups[1].players
    whole, layer = game_pair(case, players, images=20, memory_limit_bytes=100_000)
    with Convolutions() as seen:
        found = layer.values(all_coalitions(6))
    np.testing.assert_allclose(found, whole.values(all_coalitions(6)), atol=1e-10)
    assert max(seen.rows[8]) < 20
    assert sum(seen.rows[8]) == 20


def test_without_room_for_all_images_they_are_computed_anew_in_chunks() -> None:
    case = nets.toy(nets.chain)
    players = case.coupling.groups[0].players
    whole, layer = game_pair(case, players, images=20, memory_limit_bytes=120_000)
    coalitions = some_coalitions(len(players))
    for _ in range(2):
        with Convolutions() as seen:
            np.testing.assert_allclose(layer.values(coalitions), whole.values(coalitions), atol=1e-10)
    first = [rows for rows in seen.rows[8] if rows < 20]
    assert sum(first) == 20
    assert len(first) > 1


def test_a_limit_below_one_image_is_refused() -> None:
    case = nets.toy(nets.chain)
    with pytest.raises(UsageError, match=r"memory_limit_bytes=1000 is too small: .* one image"):
        game_pair(case, case.coupling.groups[0].players, memory_limit_bytes=1000)


@pytest.mark.parametrize("players", [(), (0, 0), (-1,), (14,)])
def test_players_that_are_none_are_refused(players: tuple[int, ...]) -> None:
    case = nets.toy(nets.chain)
    assert case.coupling.num_players == 14
    with pytest.raises(UsageError, match="give each once, at least one, from 0 to 13"):
        game_pair(case, players)


def test_coalitions_of_another_width_are_refused() -> None:
    case = nets.toy(nets.chain)
    _, layer = game_pair(case, case.coupling.groups[0].players)
    with pytest.raises(ValueError, match=r"accepted is \(coalitions, 8\)"):
        layer.values(np.ones((2, 14), dtype=bool))


def test_images_of_single_precision_give_values_of_single_precision() -> None:
    torch.manual_seed(0)
    module = nets.chain().eval()
    captured = capture(module, nets.IMAGE)
    coupling = couple(captured)
    images = torch.randn(6, *nets.IMAGE)
    batch = ImageBatch(images=images, labels=torch.arange(6) % 5)
    layer = LayerGame(captured, coupling, coupling.groups[1].players, batch, [module(images)])
    loss = functional.cross_entropy(module(images), torch.arange(6) % 5, reduction="none")
    found = layer.values(np.ones((1, 6), dtype=bool))
    np.testing.assert_allclose(found[0], -loss.detach().numpy(), rtol=1e-5)


class ImageAndSensors(nn.Module):
    """Two inputs; the second joins behind the masks and has the name that masks have in a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.joined = nn.Linear(8 + 4, 6)
        self.out = nn.Linear(6, 5)

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        features = self.stem(image).mean((2, 3))
        return self.out(functional.relu(self.joined(torch.cat([features, masks], 1))))


def test_further_inputs_go_with_their_images() -> None:
    torch.manual_seed(0)
    captured = capture(ImageAndSensors().eval(), (nets.IMAGE, (4,)))
    captured.graph_module.double()
    coupling = couple(captured)
    images, sensors = torch.randn(9, *nets.IMAGE, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    batch = ImageBatch(images=images, labels=torch.arange(9) % 5)
    reference = [captured.graph_module(images, sensors)]
    masked = mask_module(captured, coupling)
    whole = MaskedGame(masked, coupling.num_players, batch, reference, further_inputs=(sensors,))
    for group in coupling.groups:
        players = np.array(group.players)
        layer = LayerGame(captured, coupling, players, batch, reference, further_inputs=(sensors,))
        coalitions = some_coalitions(len(players))
        np.testing.assert_allclose(
            layer.values(coalitions), SubGame(whole, players).values(coalitions), atol=1e-10
        )


# Linear suffixes.


def suffix_case(forward: Callable[[Network, Tensor], Tensor], **layers: nn.Module) -> Case:
    torch.manual_seed(0)
    return nets.make_case(Network(forward, **layers))


def after_tanh(m: Network, x: Tensor) -> Tensor:
    return m.out(functional.avg_pool2d(torch.tanh(m.conv(x)), 2).flatten(1))


def twice_masked(m: Network, x: Tensor) -> Tensor:
    y = torch.tanh(m.conv(x))
    return m.out((m.a(y) * m.b(y)).flatten(1))


def chained_linear(m: Network, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.out(functional.pad(2 * m.a(y) - m.b(y), (1, 1)).mean((2, 3)) / 3)


LINEAR_CASES = [
    (after_tanh, {"out": (96, 5)}, True),
    (chained_linear, {"a": (6, 4, 3), "b": (6, 4, 3), "out": (4, 5)}, True),
    (twice_masked, {"a": (6, 2, 1), "b": (6, 2, 1), "out": (128, 5)}, False),
]


@pytest.mark.parametrize(
    ("forward", "layers", "linear"), LINEAR_CASES, ids=lambda v: getattr(v, "__name__", "")
)
def test_linear_suffixes_are_told_by_their_ops_and_equal_the_replay(
    forward: Callable[[Network, Tensor], Tensor], layers: dict[str, tuple[int, ...]], linear: bool
) -> None:
    made = {k: nn.Linear(*v) if len(v) == 2 else nn.Conv2d(*v) for k, v in layers.items()}
    case = suffix_case(forward, conv=nn.Conv2d(3, 6, 3, padding=1), **made)
    players = next(g.players for g in case.coupling.groups if "conv" in g.layers)
    whole, layer = game_pair(case, players)
    assert layer.is_linear == linear
    np.testing.assert_allclose(layer.values(all_coalitions(6)), whole.values(all_coalitions(6)), atol=1e-10)


def test_a_rectifier_that_happens_to_do_nothing_is_not_linear() -> None:
    case = suffix_case(
        lambda m, x: m.out(functional.relu(m.mid(torch.sigmoid(m.conv(x)))).flatten(1)),
        conv=nn.Conv2d(3, 6, 3, padding=1),
        mid=nn.Conv2d(6, 2, 1),
        out=nn.Linear(128, 5),
    )
    with torch.no_grad():
        for name, parameter in case.captured.graph_module.named_parameters():
            if name.startswith("mid"):
                parameter.abs_()
    players = next(g.players for g in case.coupling.groups if "conv" in g.layers)
    whole, layer = game_pair(case, players)
    assert not layer.is_linear
    assert any("relu" in name for name in layer.nonlinear)
    np.testing.assert_allclose(layer.values(all_coalitions(6)), whole.values(all_coalitions(6)), atol=1e-10)


def test_a_table_of_the_layer_gives_its_shapley_values() -> None:
    case = nets.toy(nets.chain)
    whole, layer = game_pair(case, case.coupling.groups[1].players)
    np.testing.assert_allclose(
        CoalitionTable.of(layer).shapley(), CoalitionTable.of(whole).shapley(), atol=1e-10
    )


def test_classifier_behind_global_pooling_is_linear() -> None:
    case = suffix_case(lambda m, x: m.head(m.stem(x)), stem=conv_bn(3, 6), head=head(6))
    _, layer = game_pair(case, case.coupling.groups[0].players)
    assert layer.is_linear
