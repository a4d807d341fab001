"""Models with several inputs: captured, coupled, masked and pruned like any other, and refused by name."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
import torch
from several_inputs import (
    IMAGE,
    NETWORKS,
    VECTOR,
    ImageAndVector,
    Joined,
    added_branch,
    added_input,
    case,
    shared_backbone,
    three_inputs,
)
from torch import Tensor, nn
from torch.nn import functional

import edgeprune
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import NO_PLAYER
from edgeprune.capture.capture import capture
from edgeprune.capture.export import export_program
from edgeprune.capture.inputs import input_shapes
from edgeprune.coupling.coupling import couple
from edgeprune.errors import CaptureError, UsageError
from edgeprune.fx import tensor_leaves
from edgeprune.games.masked_game import MaskedGame
from edgeprune.pruning.masking import full_masks, mask_module
from edgeprune.pruning.surgery import prune


def masks_without(found: nets.Case, *removed_by_image: tuple[int, ...]) -> Tensor:
    masks = full_masks(len(removed_by_image), found.coupling.num_players, dtype=torch.float64)
    for row, removed in enumerate(removed_by_image):
        masks[row, list(removed)] = 0
    return masks


@pytest.mark.parametrize("factory", NETWORKS, ids=lambda f: f.__name__)
def test_every_group_pruned_equals_masked(factory):
    found, inputs = case(factory)
    assert found.coupling.num_players == NETWORKS[factory][1]
    assert found.coupling.unruled_ops == ()
    masked = mask_module(found.captured, found.coupling)
    with torch.no_grad():
        original = tensor_leaves(found.captured.graph_module(*inputs))
        for removed in found.removals():
            without = tensor_leaves(masked(*inputs, masks_without(found, removed, removed)))
            pruned = tensor_leaves(prune(found.captured, found.coupling, removed)(*inputs))
            assert nets.distance(without, pruned) < 1e-10
            assert nets.distance(original, without) > 1e-6


@pytest.mark.parametrize("factory", NETWORKS, ids=lambda f: f.__name__)
def test_every_row_of_the_batch_has_its_own_mask(factory):
    found, inputs = case(factory)
    masked = mask_module(found.captured, found.coupling)
    removed = found.removals()[-1]
    with torch.no_grad():
        mixed = tensor_leaves(masked(*inputs, masks_without(found, removed, ())))
        original = tensor_leaves(found.captured.graph_module(*inputs))
        pruned = tensor_leaves(prune(found.captured, found.coupling, removed)(*inputs))
    assert nets.distance([o[:1] for o in pruned], [o[:1] for o in mixed]) < 1e-10
    assert nets.distance([o[1:] for o in original], [o[1:] for o in mixed]) < 1e-10


def test_the_masks_come_after_all_inputs():
    found, _ = case(three_inputs)
    graph = mask_module(found.captured, found.coupling).graph
    names = [n.name for n in graph.nodes if n.op == "placeholder"]
    assert len(names) == 4
    assert names[-1] == "masks"


def test_inputs_have_no_players_and_keep_their_order():
    found, _ = case(ImageAndVector)
    names = [n.name for n in found.captured.graph_module.graph.nodes if n.op == "placeholder"]
    assert names == ["image", "vector"]
    stem = found.coupling.parameter_players[("stem.0.weight", 0)].tolist()
    entering = found.coupling.parameter_players[("joined.weight", 1)].tolist()
    assert entering == [*stem, *[NO_PLAYER] * 5]


def test_a_backbone_for_two_images_is_pruned_once_and_counted_twice():
    found, _ = case(shared_backbone)
    names = [layer.name for layer in found.coupling.layers]
    assert names == ["backbone.0.0", "backbone.1.0", "backbone.0.0@2", "backbone.1.0@2", "head.2"]
    assert len(found.coupling.groups) == 2
    weights = [n for n, _ in found.captured.graph_module.named_parameters() if n == "backbone.0.0.weight"]
    assert len(weights) == 1


def test_both_operands_of_an_add_leave_together_and_an_added_input_holds_its_channels():
    coupling = case(added_branch)[0].coupling
    left, right = (coupling.parameter_players[(f"{n}.weight", 0)].tolist() for n in ("left.0", "right"))
    assert left == right
    stays = {f.layer: f.channels for f in case(added_input)[0].coupling.frozen}
    assert stays["stem.0"] == 8


def test_shapes_of_all_inputs_are_kept():
    captured = case(three_inputs)[0].captured
    assert captured.input_shapes == (IMAGE, VECTOR, (1, 8, 8))
    with pytest.raises(CaptureError, match="takes 3 inputs, 3x8x8 and 5 and 1x8x8; accepted here is one"):
        _ = captured.input_shape


def test_one_shape_in_a_tuple_is_one_input():
    captured = capture(nets.chain().eval(), (IMAGE,))
    assert captured.input_shapes == (IMAGE,)
    assert captured.input_shape == IMAGE


def test_a_pruned_network_of_two_inputs_exports_again():
    found, inputs = case(ImageAndVector)
    pruned = prune(found.captured, found.coupling, found.removals()[-1])
    program = export_program(pruned, inputs)
    larger = tuple(torch.cat([i, i, i]) for i in inputs)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*larger), pruned(*larger))


def test_values_of_a_game_with_further_inputs_are_losses_of_the_pruned_network():
    module = ImageAndVector().eval()
    captured = capture(module, (IMAGE, VECTOR))
    coupling = couple(captured)
    images, vectors = torch.randn(6, *IMAGE), torch.randn(6, *VECTOR)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    with torch.no_grad():
        reference = [captured.graph_module(images, vectors)]
    game = MaskedGame(
        mask_module(captured, coupling),
        coupling.num_players,
        ImageBatch(images=images, labels=labels),
        reference,
        further_inputs=(vectors,),
        images_at_once=4,
    )
    coalition = np.ones((1, coupling.num_players), dtype=bool)
    coalition[0, [1, 9]] = False
    with torch.no_grad():
        outputs = prune(captured, coupling, (1, 9))(images, vectors)
    expected = -functional.cross_entropy(outputs, labels, reduction="none")
    np.testing.assert_allclose(game.values(coalition)[0], expected.numpy(), rtol=1e-4, atol=1e-6)
    narrowed = game.on_images(3).values(coalition)[0]
    np.testing.assert_allclose(narrowed, expected[:3].numpy(), rtol=1e-4, atol=1e-6)
    slopes = game.marginals(np.full((2, coupling.num_players), 0.5), np.array([1, 5]))
    assert slopes.shape == (2, coupling.num_players)
    assert np.abs(slopes).max() > 0


def test_inspect_describes_a_model_with_two_inputs():
    found = edgeprune.inspect(ImageAndVector(), input_shape=(IMAGE, VECTOR))
    assert found.input_shape == (IMAGE, VECTOR)
    assert found.players == 14
    assert found.render() is not None
    assert "input 3x8x8 and 5" in str(found.render().renderables[0])


@pytest.mark.parametrize(
    "given",
    [
        ((3, 8, 8), 5), ((3, 8, 8), (0,)), (3, -1, 8), (3, 8.0, 8), (True, 8, 8), "3x8x8", 3, None,
        ((3, 8, 8), ((5,),)), ([3, 8, 8], "5"),
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_shape_is_refused_with_both_accepted_forms(given):
    with pytest.raises(CaptureError, match="is not accepted: give the sizes of one input") as caught:
        input_shapes(given)
    assert "((3, 224, 224), (5,))" in str(caught.value)


def test_lists_are_shapes_too():
    assert input_shapes([3, 8, 8]) == (IMAGE,)
    assert input_shapes([[3, 8, 8], []]) == (IMAGE, ())


def test_too_few_shapes_name_the_missing_input():
    with pytest.raises(CaptureError, match="'vector'") as caught:
        capture(ImageAndVector().eval(), IMAGE)
    assert "accepted is one input" in str(caught.value)


def test_too_many_shapes_are_refused():
    with pytest.raises(CaptureError, match=r"cannot be called with 3 tensors .* one shape for each"):
        capture(ImageAndVector().eval(), (IMAGE, VECTOR, VECTOR))


def test_shapes_in_the_wrong_order_are_refused():
    with pytest.raises(CaptureError, match="does not run on inputs of the shapes 5 and 3x8x8") as caught:
        capture(ImageAndVector().eval(), (VECTOR, IMAGE))
    assert "order of the model's forward method" in str(caught.value)


def test_several_inputs_that_cannot_be_captured_are_told_with_their_shapes():
    module = Joined(lambda m, a, b: m.layer(a if a.sum() > 0 else a + b), layer=nn.Conv2d(3, 4, 1))
    with pytest.raises(CaptureError, match="for inputs of 3x8x8 and 3x8x8 with a dynamic batch") as caught:
        capture(module.eval(), (IMAGE, IMAGE))
    assert "tensors of those shapes" in str(caught.value)


def test_a_program_of_two_inputs_needs_a_dynamic_batch(tmp_path):
    example = (torch.rand(4, *IMAGE), torch.rand(4, *VECTOR))
    dynamic = ({0: torch.export.Dim("batch")},) * 2
    for name, shapes in (("free.pt2", dynamic), ("fixed.pt2", None)):
        program = torch.export.export(ImageAndVector().eval(), example, dynamic_shapes=shapes)
        torch.export.save(program, tmp_path / name)
    assert edgeprune.inspect(tmp_path / "free.pt2", input_shape=(IMAGE, VECTOR)).players == 14
    with pytest.raises(CaptureError, match="exported for a fixed batch of 4; accepted is a dynamic batch"):
        edgeprune.inspect(tmp_path / "fixed.pt2", input_shape=(IMAGE, VECTOR))


def test_shapes_of_several_inputs_are_those_of_the_calibration_data(tmp_path):
    with pytest.raises(UsageError, match="several inputs, 3x8x8 and 5; accepted is the shape of one"):
        edgeprune.compress(
            ImageAndVector(), calibration=tmp_path, output=tmp_path / "out", input_shape=(IMAGE, VECTOR)
        )
    assert not (tmp_path / "out").exists()
