"""Attributes of the user's own classes that repeat a pruned size: set only where the program proves them."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import edgeprune
from edgeprune.applying.attributes import attempts, put
from edgeprune.capture.capture import capture
from edgeprune.capture.export import program_of_graph
from edgeprune.coupling.coupling import couple
from edgeprune.errors import CaptureError, SurgeryError
from edgeprune.exporting import save_program, save_surgery
from edgeprune.pruning.surgery import prune, surgery_recipe

IMAGE = (3, 4, 4)
WIDTH = 16


class Attention(nn.Module):
    """Heads of a width that is an attribute, as in many libraries."""

    def __init__(self, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.num_heads = heads
        self.head_dim = WIDTH // heads
        self.attn_dim = WIDTH
        self.scale = self.head_dim**-0.5
        self.fused_attn = fused
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], 3, self.num_heads, self.head_dim)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attn:
            found = functional.scaled_dot_product_attention(q, k, v)
        else:
            found = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(found.transpose(1, 2).reshape(x.shape[0], -1, self.attn_dim))


class Tokens(nn.Module):
    """A pixel each, through one attention layer."""

    def __init__(self, heads: int, *, fused: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 1)
        self.attention = Attention(heads, fused=fused)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


class Scales(nn.Module):
    """Pieces of a fixed width, each through a convolution of its own, which reads it alone."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4
        self.stem = nn.Conv2d(3, 12, 1)
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = self.stem(x).split(self.width, 1)
        one = self.first(one)
        two = self.second(two)
        return self.head(torch.cat([one, two, three], 1).relu().mean((2, 3)))


def write_run(
    model: nn.Module, folder: Path, shares: tuple[float, ...] = (0.5,), **kwargs: bool
) -> nn.Module:
    """Write what a run writes that removed a share of every group, in turn; returns the rewritten graph."""
    torch.manual_seed(0)
    captured = capture(model.eval(), IMAGE)
    coupling = couple(captured)
    removed = tuple(
        player
        for index, group in enumerate(coupling.groups)
        for player in group.players[: int(len(group.players) * shares[index % len(shares)])]
    )
    graph = prune(captured, coupling, removed)
    save_surgery(
        surgery_recipe(coupling, removed, captured), {**model.state_dict(), **graph.state_dict()}, folder
    )
    if kwargs.get("program", True):
        save_program(program_of_graph(graph, torch.zeros(2, *IMAGE)), folder / "model.pt2")
    return graph


TokensRun = Callable[..., tuple[Tokens, nn.Module]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Tokens, nn.Module, Path]]:
    @functools.cache
    def once(heads: int, *, fused: bool = False) -> tuple[Tokens, nn.Module, Path]:
        torch.manual_seed(0)
        model, folder = Tokens(heads, fused=fused), tmp_path_factory.mktemp("tokens")
        return model, write_run(model, folder), folder

    return once


@pytest.fixture
def tokens_run(written: Callable[..., tuple[Tokens, nn.Module, Path]], tmp_path: Path) -> TokensRun:
    """A model with what a run wrote about it, in ``tmp_path``, and the rewritten graph."""

    def copied(heads: int, *, fused: bool = False) -> tuple[Tokens, nn.Module]:
        model, graph, folder = written(heads, fused=fused)
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        return copy.deepcopy(model), graph

    return copied


def apply(model: nn.Module, folder: Path) -> nn.Module:
    return edgeprune.apply_surgery(model, folder / "surgery.json", folder / "weights.safetensors")


def assert_equal_outputs(one: nn.Module, two: nn.Module) -> None:
    images = torch.rand(3, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(one(images), two(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("heads", "left"), [(2, (2, 4)), (4, (4, 2))])
@pytest.mark.parametrize("fused", [False, True])
def test_the_width_of_heads_follows(
    heads: int, left: tuple[int, int], fused: bool, tokens_run: TokensRun, tmp_path: Path
) -> None:
    """Of four heads of four one number tells both, and only one of them has become smaller."""
    model, graph = tokens_run(heads, fused=fused)
    replayed = apply(model, tmp_path)
    assert_equal_outputs(replayed, graph)
    assert (replayed.attention.num_heads, replayed.attention.head_dim) == left
    assert replayed.attention.attn_dim == WIDTH // 2
    assert (model.attention.head_dim, model.attention.fused_attn) == (WIDTH // heads, fused)
    replayed.train()(torch.rand(2, *IMAGE)).sum().backward()
    assert all(p.grad is not None for p in replayed.parameters())


def test_a_fused_attention_gives_way_to_the_scale_that_the_class_keeps(
    tokens_run: TokensRun, tmp_path: Path
) -> None:
    model, _ = tokens_run(2, fused=True)
    replayed = apply(model, tmp_path)
    assert replayed.attention.fused_attn is False
    assert replayed.attention.scale == model.attention.scale


def test_the_width_of_pieces_follows(tmp_path: Path) -> None:
    model = Scales()
    graph = write_run(model, tmp_path)
    replayed = apply(model, tmp_path)
    assert replayed.width == 2
    assert_equal_outputs(replayed, graph)


def test_sizes_of_an_unflatten_follow(tmp_path: Path) -> None:
    grouped = (nn.Unflatten(1, (2, 4)), nn.Flatten(1, 2), nn.Flatten())
    model = nn.Sequential(nn.Conv2d(3, 8, 1), *grouped, nn.Linear(128, 5))
    graph = write_run(model, tmp_path)
    replayed = apply(model, tmp_path)
    assert replayed[1].unflattened_size in ((2, 2), [2, 2])
    assert_equal_outputs(replayed, graph)


def test_pieces_that_differ_after_pruning_are_refused(tmp_path: Path) -> None:
    model = Scales()
    write_run(model, tmp_path, (0.5, 0.25))
    with pytest.raises(SurgeryError, match="conflicts with the smaller widths"):
        apply(model, tmp_path)


def test_without_the_program_nothing_is_guessed(tokens_run: TokensRun, tmp_path: Path) -> None:
    model, _ = tokens_run(2)
    (tmp_path / "model.pt2").unlink()
    with pytest.raises(SurgeryError, match="conflicts with the smaller widths"):
        apply(model, tmp_path)


def test_weights_of_another_run_are_still_found(tokens_run: TokensRun, tmp_path: Path) -> None:
    model, _ = tokens_run(2)
    with torch.no_grad():
        model.head.weight.mul_(1.5)
    write_run(model, tmp_path, program=False)
    with pytest.raises(SurgeryError, match="holds other weights than"):
        apply(model, tmp_path)


def test_a_recipe_tells_what_each_size_has_become(tokens_run: TokensRun, tmp_path: Path) -> None:
    tokens_run(4)
    sizes = json.loads((tmp_path / "surgery.json").read_text())["module_sizes"]
    assert sizes["attention"] == {"4": [2, 4], "16": [8, 16], "48": [24]}
    assert sizes["attention.qkv"] == {"48": [24]}
    assert "head" not in sizes


def test_attempts_read_an_attribute_alike_in_all_modules_of_a_class_and_can_be_undone() -> None:
    model = nn.Sequential(Tokens(4), Tokens(4))
    sizes = {f"{i}.attention": {4: (2, 4), 16: (8,)} for i in range(2)}
    tried = list(attempts(model, sizes))
    assert [{(c.attribute, c.value) for c in t if c.module == "0.attention"} for t in tried] == [
        {("num_heads", heads), ("head_dim", width), ("attn_dim", 8)} for heads in (2, 4) for width in (2, 4)
    ]
    for changes in tried:
        assert {(c.attribute, c.value) for c in changes if c.module == "0.attention"} == {
            (c.attribute, c.value) for c in changes if c.module == "1.attention"
        }
    undo = put(model, tried[0])
    assert model[1].attention.num_heads == 2
    put(model, undo)
    assert (model[1].attention.num_heads, model[1].attention.attn_dim) == (4, 16)


def test_sizes_that_are_no_numbers(tokens_run: TokensRun, tmp_path: Path) -> None:
    model, _ = tokens_run(2)
    (tmp_path / "model.pt2").unlink()
    recipe = json.loads((tmp_path / "surgery.json").read_text())
    recipe["module_sizes"] = {"attention": {"8": "4"}}
    (tmp_path / "surgery.json").write_text(json.dumps(recipe))
    with pytest.raises(SurgeryError, match="attention has a shape that is no list of whole numbers"):
        apply(model, tmp_path)


def test_several_inputs(tmp_path: Path) -> None:
    class Two(nn.Module):
        """An image, and a number beside it."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.head(self.stem(x).relu().mean((2, 3)) * y[:, None])

    model = Two().eval()
    captured = capture(model, (IMAGE, ()))
    coupling = couple(captured)
    removed = coupling.groups[0].players[::2]
    graph = prune(captured, coupling, removed)
    recipe = surgery_recipe(coupling, removed, captured)
    assert recipe["input_shapes"] == [list(IMAGE), []]
    assert "input_shape" not in recipe
    save_surgery(recipe, {**model.state_dict(), **graph.state_dict()}, tmp_path)
    replayed = apply(model, tmp_path)
    inputs = (torch.rand(3, *IMAGE), torch.rand(3))
    with torch.no_grad():
        torch.testing.assert_close(replayed(*inputs), graph(*inputs), rtol=1e-5, atol=1e-6)
    with pytest.raises(CaptureError):
        _ = captured.input_shape
