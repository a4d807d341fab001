"""Layers and tensors of any name: what is written of them is read again, and no such name becomes code."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.fx import graph_module

import edgeprune
from edgeprune.capture.capture import capture
from edgeprune.capture.export import program_of_graph
from edgeprune.coupling.coupling import couple
from edgeprune.errors import CaptureError, ModelLoadError
from edgeprune.exporting import save_program, save_surgery
from edgeprune.loading import load_model
from edgeprune.plain_names import LONGEST_NAME, code_name, plain_name
from edgeprune.pruning.surgery import own_state, prune, surgery_recipe

IMAGE = (3, 4, 4)
CALL = "open('PWNED','w')"
CHOSEN = [
    *(
        "0",
        "1a",
        "conv1",
        "conv-1",
        "weight-1",
        "layer 2",
        "stufe_ä",
        "a/b",
        "a:b",
        "a@1",
        "@1",
        "%s",
        "{",
        "{0}",
    ),
    *(
        "class",
        "for",
        "None",
        "lambda",
        "match",
        "self",
        "input",
        "batch",
        "weight",
        "__len__",
        "__x",
        "_",
        "-",
    ),
    *("graph", "code", "meta", "recompile", "_graph", "_code", "shape_env", "_in_spec", "_guards_fn"),
    *(
        "a,b",
        "a;b",
        "a'b",
        'a"b',
        "a\\b",
        "a\\",
        "a\nb",
        "a\rb",
        "a\0b",
        "a\tb",
        "\x1b[2J",
        "\u202e",
        "\u2028",
    ),
    *(
        "\ufb01le",
        "\uff47raph",
        "\U0001d41e\U0001d42f\U0001d41a\U0001d425",
        "a\u0308",
        "\u212b",
        "😀",
        "名",
    ),
    *("x" * 1_500, "ä" * 300, CALL, f'a") or {CALL} or ("', f"a\n    {CALL}\n    b", f"a if {CALL} else b"),
]


def batched(names: list[str], count: int = 16) -> list[tuple[str, ...]]:
    return [tuple(names[start : start + count]) for start in range(0, len(names), count)]


def drawn(count: int) -> list[str]:
    """Names of characters that any of several readers stumbles over, from a seed."""
    rng = random.Random(21)
    kinds = [
        "abz09_-",
        " \t\n\r\0\"'\\`",
        "()[]{}<>,;:@#%$!|/*+=~^&?",
        "äßéﬁＧ𝐞²ª·",
        "名нא😀\u202e\u200b",
    ]
    found = {"".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randint(1, 9))) for _ in range(count)}
    return sorted(found)


class Named(nn.Module):
    """A layer, a parameter or a buffer of each name, in the network itself or in a module of it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.stem = nn.Conv2d(3, 8, 1)
        self.inner = nn.Module()
        for place, name in enumerate(names):
            owner = (self, self.inner)[place % 2]
            if place % 4 < 2:
                owner.add_module(name, nn.Conv2d(8, 8, 1))
            elif place % 8 < 4:
                owner.register_parameter(name, nn.Parameter(torch.rand(8, 1, 1)))
            else:
                owner.register_buffer(name, torch.rand(8, 1, 1), persistent=place % 16 < 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        for place, name in enumerate(self.names):
            found = getattr((self, self.inner)[place % 2], name)
            x = (found(x) if isinstance(found, nn.Module) else x * found).relu()
        return {self.names[0]: self.head(x.mean((2, 3)))}


def cut(model: nn.Module, folder: Path) -> None:
    """Write what a run on ``model`` writes that removes a third of the channels."""
    folder.mkdir()
    captured = capture(model, IMAGE)
    coupling = couple(captured)
    removed = tuple(p for g in coupling.groups for p in g.players[: len(g.players) - 1 : 3])
    assert removed
    graph = prune(captured, coupling, removed)
    state = {**model.state_dict(), **own_state(captured, graph.state_dict())}
    save_surgery(surgery_recipe(coupling, removed, captured), state, folder)
    save_program(program_of_graph(graph, torch.zeros(2, *IMAGE)), folder / "model.pt2")


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every piece of Python that torch makes of a graph from here on."""
    sources: list[str] = []
    compiled = graph_module._exec_with_source

    def noted(source: str, *arguments: Any, **more: Any) -> Any:
        sources.append(source)
        return compiled(source, *arguments, **more)

    monkeypatch.setattr(graph_module, "_exec_with_source", noted)
    return sources


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(names, id=ascii(names[0])[:20], marks=pytest.mark.wide if number % 2 else ())
        for number, names in enumerate(batched([*CHOSEN, *drawn(16)]))
    ],
)
def test_a_run_on_any_names_is_read_back_and_replayed(
    names: tuple[str, ...], tmp_path: Path, generated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Named(names).eval()
    cut(model, tmp_path / "one")
    assert load_file(tmp_path / "one" / "weights.safetensors").keys() >= model.state_dict().keys()
    generated.clear()
    program = load_model(tmp_path / "one" / "model.pt2").module
    images = torch.rand(3, *IMAGE)
    (expected,) = _outputs(program, images)
    assert all(plain_name(name) == name for name in program.state_dict())
    assert generated
    for source in generated:
        assert source.isascii()
        assert CALL not in source
        assert not re.search(r'getattr\([^"]*"[^"]*[^A-Za-z0-9_"-]', source)
    pruned = edgeprune.apply_surgery(
        model, tmp_path / "one" / "surgery.json", tmp_path / "one" / "weights.safetensors"
    )
    assert torch.allclose(_outputs(pruned, images)[0], expected, atol=1e-5)
    assert not (tmp_path / "PWNED").exists()


def test_a_recipe_made_from_the_program_fits_the_class(tmp_path: Path) -> None:
    model = Named(("class", "layer 2", "stufe_ä", "graph", "a\nb", "\ufb01le", "0", "__x")).eval()
    shape = {0: torch.export.Dim("batch")}
    program = torch.export.export(model, (torch.rand(2, *IMAGE),), dynamic_shapes=(shape,))
    save_program(_plain(program), tmp_path / "whole.pt2")
    cut(load_model(tmp_path / "whole.pt2").module, tmp_path / "run")
    pruned = edgeprune.apply_surgery(
        model, tmp_path / "run" / "surgery.json", tmp_path / "run" / "weights.safetensors"
    )
    assert pruned.stem.weight.shape[0] < 8  # type: ignore[union-attr]


def test_names_stay_as_they_are_where_code_can_hold_them() -> None:
    for name in ("stem.weight", "layers.0.conv-1.bias", "_x.y_1", "", "x" * LONGEST_NAME):
        assert plain_name(name) == code_name(name) == name
    for name in ("stufe_ä.weight", "layer 2.weight", "a/b", "\x1b[2J.bias"):
        assert code_name(name) == name


def test_plain_names_are_ascii_differ_and_are_plain_themselves() -> None:
    names = {*CHOSEN, *drawn(2_000)}
    found = {name: plain_name(name) for name in names}
    assert len({*found.values()}) == len(names)
    for plain in found.values():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", plain)
        assert plain_name(plain) == code_name(plain) == plain


def test_names_too_much_alike_too_long_or_no_text_are_one_sentence(tmp_path: Path) -> None:
    for names, told in (
        (("layer 2", "layer-x20-2"), "too much alike"),
        (("class", "class-"), "too much alike"),
        (("x" * 5_000,), "a name of 5007 characters"),
        (("\ud800",), "is no text that a file can hold"),
    ):
        pairs = tuple(name for name in names for _ in range(2))
        model = nn.Sequential()
        for name in dict.fromkeys(pairs):
            model.add_module(name, nn.Conv2d(3, 3, 1))
        with pytest.raises(CaptureError, match=told) as info:
            capture(model.eval(), IMAGE)
        assert "\n" not in str(info.value)
    model = nn.Sequential()
    for name in ("class", "class-"):
        model.add_module(name, nn.Conv2d(3, 3, 1))
    torch.export.save(torch.export.export(model.eval(), (torch.rand(2, *IMAGE),)), tmp_path / "two.pt2")
    with pytest.raises(ModelLoadError, match="too much alike"):
        load_model(tmp_path / "two.pt2")


def test_programs_of_torch_with_words_of_python_and_of_its_own_are_read(tmp_path: Path) -> None:
    model = Named(("class", "graph", "None", "code", "for", "self", "meta", "recompile")).eval()
    images = torch.rand(2, *IMAGE)
    torch.export.save(torch.export.export(model, (images,)), tmp_path / "program.pt2")
    program = load_model(tmp_path / "program.pt2").module
    assert torch.allclose(_outputs(program, images)[0], _outputs(model, images)[0], atol=1e-6)


def _plain(program: Any) -> Any:
    from edgeprune.plain_names import make_names_plain

    make_names_plain(program)
    return program


def _outputs(module: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = module(images)
    return list(found.values()) if isinstance(found, dict) else [found]
