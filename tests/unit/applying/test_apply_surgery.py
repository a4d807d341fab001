"""A recipe on the user's own class: what follows, what stays as it was, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import randomise
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import edgeprune
from edgeprune.capture.capture import capture
from edgeprune.capture.export import program_of_graph
from edgeprune.coupling.coupling import couple
from edgeprune.errors import SurgeryError
from edgeprune.exporting import save_program, save_surgery
from edgeprune.pruning.surgery import prune, surgery_recipe

IMAGE = (3, 8, 8)


class Net(nn.Module):
    """Layers in ``body``, then the mean over pixels and a linear layer."""

    def __init__(self, width: int, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Chunks(Net):
    """Halves by a number in Python: where they stay equal it holds."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.body(x).split(4, 1)
        return self.head(torch.cat([left, -right], 1).mean((2, 3)))


class Sliced(Net):
    """A slice that runs over the end without an error."""

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x)
        return self.head(torch.cat([found[:, :4] * 2, found[:, 4:]], 1).mean((2, 3)))


class Constants(Net):
    """A plain tensor attribute and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__(8, nn.Conv2d(3, 8, 3), nn.ReLU())
        self.scale = torch.linspace(1, 2, 8).view(8, 1, 1)
        self.register_buffer("shift", torch.linspace(-1, 1, 8).view(8, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.body(x) * self.scale + self.shift).mean((2, 3)))


class Literal(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.body(x) * torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8]).view(8, 1, 1)).mean((2, 3)))


class Tied(nn.Module):
    """One kernel in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.stem(x)).relu()).mean((2, 3)))


def chain() -> Net:
    return Net(6, nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())


def write_run(
    model: nn.Module, folder: Path, *, program: bool = False, step: int = 2, weights_times: float = 1.0
) -> nn.Module:
    """Write what a run writes that removed every ``step``-th player; returns the rewritten graph."""
    captured = capture(model.eval(), IMAGE)
    coupling = couple(captured)
    removed = tuple(p for g in coupling.groups for p in g.players[: len(g.players) - 1 : step])
    assert removed
    graph = prune(captured, coupling, removed)
    with torch.no_grad():
        for value in graph.parameters():
            value.mul_(weights_times)
    state = {**model.state_dict(), **graph.state_dict()}
    save_surgery(surgery_recipe(coupling, removed, captured), state, folder)
    if program:
        save_program(program_of_graph(graph, torch.zeros(2, *IMAGE)), folder / "model.pt2")
    return graph


def apply(model: nn.Module, folder: Path) -> nn.Module:
    return edgeprune.apply_surgery(model, folder / "surgery.json", folder / "weights.safetensors")


def assert_equal_outputs(one: nn.Module, two: nn.Module) -> None:
    images = torch.rand(3, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(one(images), two(images), rtol=1e-5, atol=1e-6)


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(SurgeryError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert caught.value.exit_status == 11
    return message


LAYERS: dict[str, Callable[[], Net]] = {
    "chain": chain,
    "depthwise": lambda: Net(8, nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)),
    "depthwise, two a channel": lambda: Net(16, nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, groups=8), nn.ReLU()),
    "grouped": lambda: Net(8, nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU()),
    "transposed": lambda: Net(6, nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2), nn.ReLU()),
    "prelu": lambda: Net(8, nn.Conv2d(3, 8, 3), nn.PReLU(8)),
    "group norm": lambda: Net(8, nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU()),
    "group norm without scale": lambda: Net(8, nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8, affine=False)),
    "instance norm": lambda: Net(8, nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.PReLU()),
    "instance norm without scale": lambda: Net(8, nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.ELU()),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("error:input's size at dim=1 does not match num_features")
def test_every_layer_says_its_new_size(name: str, tmp_path: Path) -> None:
    model = LAYERS[name]()
    randomise(model, IMAGE)
    graph = write_run(model, tmp_path)
    before = repr(model)
    replayed = apply(model, tmp_path)
    assert repr(model) == before
    assert repr(replayed) != before
    assert_equal_outputs(replayed, graph)
    for old, layer in zip(model.modules(), replayed.modules(), strict=True):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            fresh = type(layer)(layer.in_channels, layer.out_channels, layer.kernel_size, groups=layer.groups)
            assert fresh.weight.shape == layer.weight.shape
        elif isinstance(layer, nn.Linear):
            assert layer.weight.shape == (layer.out_features, layer.in_features)
        elif isinstance(layer, nn.GroupNorm):
            assert layer.num_channels / layer.num_groups == 2
            assert layer.num_channels < old.num_channels
        elif isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d):
            assert layer.num_features < old.num_features
        elif isinstance(layer, nn.PReLU) and old.num_parameters > 1:
            assert (layer.num_parameters,) == layer.weight.shape


def test_the_recovered_weights_are_loaded_or_the_models_own_are_kept(tmp_path: Path) -> None:
    model = chain()
    graph = write_run(model, tmp_path, weights_times=1.5, program=True)
    assert_equal_outputs(apply(model, tmp_path), graph)
    kept = edgeprune.apply_surgery(model, tmp_path / "surgery.json")
    indices = json.loads((tmp_path / "surgery.json").read_text())["kept_indices"]["body.0.weight"]["0"]
    assert torch.equal(kept.body[0].weight, model.body[0].weight[indices])
    assert torch.equal(apply(model, tmp_path).body[0].weight, 1.5 * model.body[0].weight[indices])


def test_the_given_model_is_not_changed_and_its_state_is_taken_over(tmp_path: Path) -> None:
    model = chain().eval()
    write_run(model, tmp_path, weights_times=2.0)
    model.train()
    model.body[1].eval()
    model.body[0].weight.requires_grad_(False)
    model.double()
    model(torch.rand(2, *IMAGE).double()).sum().backward()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    replayed = apply(model, tmp_path)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.head.weight.grad is not None
    assert [m.training for m in replayed.modules()] == [m.training for m in model.modules()]
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    assert {n: p.requires_grad for n, p in replayed.named_parameters()} == flags
    assert flags["body.0.weight"] is False
    assert {p.dtype for p in replayed.parameters()} == {torch.float64}
    assert all(p.grad is None for p in replayed.parameters())


def test_tied_parameters_stay_one(tmp_path: Path) -> None:
    model = Tied()
    graph = write_run(model, tmp_path, weights_times=1.5)
    replayed = apply(model, tmp_path)
    assert replayed.first.weight is replayed.second.weight
    assert replayed.first.out_channels == replayed.second.in_channels == replayed.stem.out_channels < 8
    assert_equal_outputs(replayed, graph)


def test_tensors_that_no_state_dict_holds(tmp_path: Path) -> None:
    model = Constants()
    graph = write_run(model, tmp_path)
    replayed = apply(model, tmp_path)
    assert replayed.scale.shape == replayed.shift.shape == (replayed.head.in_features, 1, 1)
    assert "shift" not in replayed.state_dict()
    assert_equal_outputs(replayed, graph)


def test_a_custom_layers_own_numbers_are_not_guessed(tmp_path: Path) -> None:
    class Doubling(nn.Conv2d):
        """Its in_channels is not that of its weight."""

    layer = Doubling(3, 8, 3)
    layer.in_channels = 77
    layer.width = 8
    model = Net(8, layer, nn.ReLU())
    write_run(model, tmp_path)
    replayed = apply(model, tmp_path).body[0]
    assert (replayed.in_channels, replayed.out_channels, replayed.width) == (77, 8, 8)
    assert len(replayed.weight) < 8


def test_a_size_in_python_code_is_named_by_its_line(tmp_path: Path) -> None:
    model = Chunks(8, nn.Conv2d(3, 8, 3), nn.ReLU())
    write_run(model, tmp_path, step=1)
    message = refusal(lambda: apply(model, tmp_path))
    line = next(n for n, x in enumerate(Path(__file__).read_text().splitlines(), 1) if ".split(4, 1)" in x)
    assert f"{__file__}:{line} (left, right = self.body(x).split(4, 1))" in message
    assert "model.pt2" in message


def test_a_tensor_made_in_the_forward_pass_is_named_by_its_line(tmp_path: Path) -> None:
    model = Literal(8, nn.Conv2d(3, 8, 3), nn.ReLU())
    write_run(model, tmp_path)
    assert "torch.tensor([1.0, 2" in refusal(lambda: apply(model, tmp_path))


def test_a_constant_made_in_a_submodules_forward_pass(tmp_path: Path) -> None:
    """``torch.export`` names it below the submodule, which has no such tensor."""

    class Ramp(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.tensor([1.0, 2, 3, 4, 5, 6])

    model = Net(8, nn.Conv2d(3, 8, 3), Ramp(), nn.ReLU())
    graph = write_run(model, tmp_path, program=True)
    shapes = json.loads((tmp_path / "surgery.json").read_text())["original_shapes"]
    assert any(name.startswith("body.1.lifted_tensor") for name in shapes)
    assert_equal_outputs(apply(model, tmp_path), graph)


def test_a_weight_that_the_class_computes(tmp_path: Path) -> None:
    """The graph holds the result: it may be there, but what was pruned of it cannot be replayed."""

    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)

    model = Net(8, Standardised(3, 8, 3), nn.ReLU())
    write_run(model, tmp_path, program=True)
    assert "computes 'body.0.folded.weight' in its forward pass" in refusal(lambda: apply(model, tmp_path))

    class Whole(Net):
        """Nothing of the second head's weight leaves."""

        def __init__(self) -> None:
            super().__init__(8, nn.Conv2d(3, 8, 3), nn.ReLU())
            self.second = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            beside = nn.functional.linear(x.mean((2, 3)), self.second.weight * 2)
            return torch.cat([super().forward(x), beside], 1)

    model = Whole()
    graph = write_run(model, tmp_path, program=True)
    assert "second.folded.weight" in graph.state_dict()
    assert_equal_outputs(apply(model, tmp_path), graph)


def test_a_layer_of_torch_that_fails_is_named(tmp_path: Path) -> None:
    grouped = (nn.Unflatten(1, (2, 4)), nn.Flatten(1, 2), nn.Flatten())
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *grouped, nn.Linear(288, 4))
    write_run(model, tmp_path)
    assert "'1' (Unflatten(dim=1, unflattened_size=(2, 4)))" in refusal(lambda: apply(model, tmp_path))


def test_a_size_that_only_changes_the_outputs_is_found_beside_the_program(tmp_path: Path) -> None:
    model = Sliced(8, nn.Conv2d(3, 8, 3), nn.ReLU())
    write_run(model, tmp_path, program=True)
    for weights in ("weights.safetensors", None):
        given = None if weights is None else tmp_path / weights
        message = refusal(
            lambda given=given: edgeprune.apply_surgery(model, tmp_path / "surgery.json", given)
        )
        assert "its outputs are not those of" in message
        assert "fixed split, slice" in message


def test_weights_of_another_run(tmp_path: Path) -> None:
    model, other, here = chain(), tmp_path / "other", tmp_path / "here"
    other.mkdir(), here.mkdir()
    write_run(model, here, program=True)
    write_run(model, other, weights_times=1.5)
    message = refusal(
        lambda: edgeprune.apply_surgery(model, here / "surgery.json", other / "weights.safetensors")
    )
    assert "holds other weights than" in message
    write_run(model, other, step=3)
    message = refusal(
        lambda: edgeprune.apply_surgery(model, here / "surgery.json", other / "weights.safetensors")
    )
    assert "body.0.bias is (5,) in the file and (4,) in the pruned model" in message
    assert "more" in message


def test_names_of_weights_that_are_missing_or_not_known(tmp_path: Path) -> None:
    model = chain()
    write_run(model, tmp_path)
    tensors = load_file(tmp_path / "weights.safetensors")
    tensors["neck.weight"] = tensors.pop("head.weight")
    save_file(tensors, tmp_path / "weights.safetensors")
    message = refusal(lambda: apply(model, tmp_path))
    assert "'head.weight' not in the file; 'neck.weight' not in the model" in message


def test_another_model(tmp_path: Path) -> None:
    write_run(chain(), tmp_path)
    assert "'body.0.bias'" in refusal(lambda: apply(nn.Conv2d(3, 8, 3), tmp_path))
    wider = Net(6, nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9), nn.ReLU(), nn.Conv2d(9, 6, 3), nn.ReLU())
    assert "body.0.bias is (9,) where the recipe says (8,)" in refusal(lambda: apply(wider, tmp_path))
    replayed = apply(chain(), tmp_path)
    assert "as it was before pruning" in refusal(lambda: apply(replayed, tmp_path))
    assert "such as model.module" in refusal(lambda: apply(nn.DataParallel(chain()), tmp_path))


def test_an_index_out_of_range_without_recorded_shapes(tmp_path: Path) -> None:
    write_run(chain(), tmp_path)
    recipe = json.loads((tmp_path / "surgery.json").read_text())
    old = {"schema_version": "1.0", "kept_indices": {"head.weight": {"1": [0, 6]}}}
    (tmp_path / "surgery.json").write_text(json.dumps(old))
    assert "too small for dimension 1" in refusal(lambda: apply(chain(), tmp_path))
    old["kept_indices"] = recipe["kept_indices"]
    (tmp_path / "surgery.json").write_text(json.dumps(old))
    assert apply(chain(), tmp_path).head.in_features == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ("[1]", "schema version None"),
        ('{"schema_version": "2.0", "kept_indices": {}}', "schema version '2.0'"),
        ('{"schema_version": "1.1"}', "malformed ('kept_indices')"),
        ('{"schema_version": "1.1", "kept_indices": [1]}', "malformed"),
        ('{"schema_version": "1.1", "kept_indices": {"a": {"x": [1]}}}', "a has a dimension 'x'"),
        ('{"schema_version": "1.1", "kept_indices": {"a": {"0": [2, 1]}}}', "not ascending whole numbers"),
        ('{"schema_version": "1.1", "kept_indices": {"a": {"0": []}}}', "not ascending whole numbers"),
        ('{"schema_version": "1.1", "kept_indices": {"a": {"0": [-1, 1]}}}', "not ascending whole numbers"),
        ('{"schema_version": "1.1", "kept_indices": {}, "input_shape": "3x8"}', "input_shape has a shape"),
    ],
)
def test_bad_recipes(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "surgery.json"
    path.write_text(content)
    assert said in refusal(lambda: edgeprune.apply_surgery(chain(), path))


def test_bad_files(tmp_path: Path) -> None:
    recipe = tmp_path / "surgery.json"
    assert "No such file" in refusal(lambda: edgeprune.apply_surgery(chain(), recipe))
    recipe.write_bytes(b"\xff\xfe\x00")
    assert "is not JSON" in refusal(lambda: edgeprune.apply_surgery(chain(), recipe))
    write_run(chain(), tmp_path)
    none = tmp_path / "none"
    assert "No such file" in refusal(lambda: edgeprune.apply_surgery(chain(), recipe, none))
    assert "a damaged safetensors file" in refusal(lambda: edgeprune.apply_surgery(chain(), recipe, recipe))
    message = refusal(lambda: edgeprune.apply_surgery(chain(), recipe, check_against=none))
    assert "does not exist" in message


def test_a_pruned_attention_layer_is_refused(tmp_path: Path) -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)

    recipe = {"schema_version": "1.0", "kept_indices": {"attention.in_proj_weight": {"0": [0, 1, 2]}}}
    (tmp_path / "surgery.json").write_text(json.dumps(recipe))
    message = refusal(lambda: edgeprune.apply_surgery(Attends(), tmp_path / "surgery.json"))
    assert "'attention' is a MultiheadAttention" in message


def test_a_model_that_cannot_be_copied_or_does_not_run(tmp_path: Path) -> None:
    write_run(chain(), tmp_path)
    model = chain()
    model.cache = model.head.weight * 2
    assert "cannot be copied" in refusal(lambda: apply(model, tmp_path))
    model = chain()
    model.forward = lambda x: 1 / 0
    assert "the given model itself does not run" in refusal(lambda: apply(model, tmp_path))
