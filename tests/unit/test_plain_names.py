"""Layers of any name: what is written is read again without trust, and computes the same."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.errors import CaptureError
from edgeprune.exporting import save_program
from edgeprune.graph.capture import capture, export_program
from edgeprune.graph.plain_names import plain_names, unwritable_names, with_plain_names
from edgeprune.loading.program_texts import is_parameter_name
from edgeprune.loading.programs import program_module, read_program

ODD = (
    "layer 2",
    "stufe_ä",
    "a:b",
    "q'z",
    "naïve",
    "__x",
    "{a}",
    "a/b",
    "tab\tx",
    "\u03b1",
    "long" * 300,
    "层",
    "x;y",
    "(",
    "__",
    " ",
)
PLAIN = ("conv-1", "0", "weight", "1e5", "training1", "forward_x", "_x")
BREAKING = ("class", "for", "None", 'x"y', "\uff46\uff55\uff4c\uff4c", "a\\b", "line\nbreak", "\ufb01")


class Named(nn.Module):
    """Two layers of a name, one below the other; ``twin`` has the name that the first would be given."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential()
        self.stem.add_module(name, nn.Conv2d(3, 4, 1))
        twin = re.sub(r"[^A-Za-z0-9_]", "_", name).lstrip("_") or "x"
        self.stem.add_module(f"{twin}_", nn.Conv2d(4, 4, 1))
        self.add_module(f"{name} end", nn.Linear(4, 2))
        self._name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two scores."""
        for layer in self.stem:
            x = torch.relu(layer(x))
        return getattr(self, f"{self._name} end")(x.mean((2, 3)))


def check_round_trip(name: str, folder) -> None:
    net = Named(name).eval()
    captured = capture(net, (3, 4, 4))
    images = torch.rand(3, 3, 4, 4)
    program = export_program(with_plain_names(captured.graph_module), torch.zeros(2, 3, 4, 4))
    save_program(program, folder / "model.pt2")
    found = read_program(folder / "model.pt2", trust_pickle=False)
    with torch.no_grad():
        torch.testing.assert_close(program_module(found, "model.pt2")(images), net(images))
    assert len(found.state_dict) == len(net.state_dict())


@pytest.mark.parametrize("name", [*ODD, *PLAIN])
def test_a_program_of_layers_of_any_name_is_read_without_trust(name, tmp_path):
    check_round_trip(name, tmp_path)


@settings(max_examples=8, deadline=None)
@given(name=st.text(st.characters(codec="utf-8", exclude_characters='."\\\n\r'), min_size=1, max_size=8))
def test_a_program_of_layers_of_generated_names(name, tmp_path_factory):
    if unwritable_names(Named(name)):
        with pytest.raises(CaptureError, match="rename the layers"):
            capture(Named(name).eval(), (3, 4, 4))
    else:
        check_round_trip(name, tmp_path_factory.mktemp("named"))


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), unique=True, max_size=12))
def test_plain_names_are_plain_and_no_two_alike(names):
    found = plain_names(names)
    assert sorted(found) == sorted(names)
    assert len(set(found.values())) == len(names)
    for old, new in found.items():
        assert is_parameter_name(new)
        assert new == old or not is_parameter_name(old)


@pytest.mark.parametrize("name", BREAKING)
def test_names_that_break_generated_python_are_told(name):
    with pytest.raises(CaptureError, match="rename the layers") as found:
        capture(Named(name).eval(), (3, 4, 4))
    assert repr(f"stem.{name}") in str(found.value)


def test_a_network_of_plain_names_is_not_touched():
    captured = capture(Named("conv1").eval(), (3, 4, 4))
    inner = with_plain_names(captured.graph_module)
    assert inner is not captured.graph_module  # " end" has a space
    assert with_plain_names(inner) is inner
