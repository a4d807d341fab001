"""Inputs that are the same for every image."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from several_inputs import ImageAndVector
from torch import Tensor, nn

from edgeprune.capture.capture import capture
from edgeprune.capture.constants import read_constants, with_constants
from edgeprune.errors import UsageError


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, scale: Tensor, x: Tensor, shift: Tensor | None = None) -> Tensor:
        y = self.layer(x) * scale
        return y if shift is None else y + shift


def test_the_bound_module_is_called_with_the_others_alone():
    module, vector = ImageAndVector().eval(), torch.randn(1, 5)
    bound = with_constants(module, {"vector": vector.expand(4, 5)})
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(bound(images), module(images, vector.expand(4, 5)))
    assert list(inspect.signature(bound.forward).parameters) == ["image"]
    assert isinstance(bound, ImageAndVector)
    assert bound.state_dict().keys() == module.state_dict().keys()


def test_a_constant_may_come_first_and_a_default_stays():
    module = Scaled().eval()
    x, scale, shift = torch.randn(3, 3), torch.full((2,), 2.0), torch.randn(3, 2)
    bound = with_constants(module, {"scale": scale})
    torch.testing.assert_close(bound(x), module(scale, x))
    torch.testing.assert_close(bound(x, shift), module(scale, x, shift))
    shifted = with_constants(module, {"shift": shift})
    torch.testing.assert_close(shifted(scale, x), module(scale, x, shift))


def test_a_copy_computes_with_its_own_weights():
    bound = with_constants(Scaled().eval(), {"scale": torch.ones(2)})
    other = copy.deepcopy(bound)
    nn.init.zeros_(other.layer.weight)
    nn.init.zeros_(other.layer.bias)
    assert float(other(torch.randn(2, 3)).abs().max()) == 0.0
    assert float(bound(torch.randn(2, 3)).abs().max()) > 0.0


def test_the_captured_graph_holds_the_constant():
    module = Scaled().eval()
    captured = capture(with_constants(module, {"scale": torch.tensor([2.0, -1.0])}), (3,))
    x = torch.randn(5, 3)
    torch.testing.assert_close(captured.graph_module(x), module(torch.tensor([2.0, -1.0]), x))


@pytest.mark.parametrize("stored", [np.float16, np.float64, np.int64, np.bool_])
def test_constants_are_read_from_files_and_arrays(stored: Any, tmp_path: Path):
    values = np.array([[1, 0, 3]]).astype(stored)
    np.save(tmp_path / "a.npy", values)
    text = read_constants([f"scale={tmp_path / 'a.npy'}"])
    given = read_constants({"scale": values})
    assert torch.equal(text["scale"], given["scale"])
    own = torch.from_numpy(values).dtype
    assert text["scale"].dtype == (torch.float32 if own.is_floating_point else own)


def test_nothing_is_bound_without_constants():
    module = Scaled()
    assert read_constants(None) == {}
    assert with_constants(module, {}) is module


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["scale"], "accepted is NAME=FILE.npy"),
        (["=a.npy"], "accepted is NAME=FILE.npy"),
        (["scale="], "accepted is NAME=FILE.npy"),
        (["sc ale=a.npy"], "accepted is NAME=FILE.npy"),
        (["scale=missing.npy"], "cannot be read .*accepted is an array of numbers"),
        ({"scale": ["a", "b"]}, "is of type <U1 .*accepted is an array of numbers"),
        ({"scale": [1.0, float("nan")]}, "NaN or infinite"),
        ({"scale": np.array([1e300])}, "NaN or infinite"),
        ({"scale": np.array([1j])}, "is of type complex128"),
        ({"scale": np.zeros((0, 3))}, r"shape \(0, 3\); accepted is an array"),
        ({"scale": np.array(["2020-01-01"], dtype="datetime64[D]")}, "is of type datetime64"),
        (["scale=a.npy", "scale=b.npy"], "given twice for scale"),
    ],
    ids=str,
)
def test_what_is_no_constant_is_refused(given: Any, message: str):
    with pytest.raises(UsageError, match=message):
        read_constants(given)


def test_a_pickled_array_is_not_loaded(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="cannot be read"):
        read_constants([f"scale={tmp_path / 'a.npy'}"])


def test_names_that_the_model_has_not_and_models_without_images_are_refused():
    with pytest.raises(UsageError, match="the model's inputs are scale, x, shift; name one of them"):
        with_constants(Scaled(), {"scal": torch.ones(2)})
    with pytest.raises(UsageError, match="for all inputs of the model"):
        with_constants(ImageAndVector(), {"image": torch.ones(1), "vector": torch.ones(1)})


def test_an_archive_of_arrays_is_no_constant(tmp_path: Path):
    np.savez(tmp_path / "a.npz", one=np.ones(3))
    with pytest.raises(UsageError, match=r"--input scale='.*a.npz' .*accepted is an array of numbers"):
        read_constants([f"scale={tmp_path / 'a.npz'}"])


def test_more_inputs_than_are_free_are_an_error():
    bound = with_constants(Scaled().eval(), {"scale": torch.ones(2)})
    with pytest.raises(TypeError, match="takes 2 inputs beside the constant ones; 3 were given"):
        bound(torch.randn(1, 3), torch.randn(1, 2), torch.ones(2))


def test_an_exported_program_takes_constants(tmp_path: Path):
    module, scale = Scaled().eval(), torch.tensor([2.0, -1.0])
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        module, (scale, torch.randn(2, 3)), dynamic_shapes={"scale": None, "x": {0: batch}}
    )
    bound = with_constants(program.module(), {"scale": scale})
    captured = capture(bound, (3,))
    x = torch.randn(5, 3)
    torch.testing.assert_close(captured.graph_module(x), module(scale, x))
