"""Calibration data of models with several inputs: arrays by name, items with tuples and dictionaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset

from edgeprune.artifacts.calibration import CalibrationSet, Preprocessing
from edgeprune.artifacts.model import taken_apart
from edgeprune.calibration import load_calibration
from edgeprune.calibration.sources.several import raw_input
from edgeprune.calibration.sources.source import ReadOptions
from edgeprune.errors import CalibrationError

PLAIN = Preprocessing(mean=(0.0,), std=(1.0,))
COUNT = 12


class Items(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def inputs_of(found: CalibrationSet) -> list[tuple[torch.Tensor, ...]]:
    """The inputs of every item, of both parts."""
    parts = [taken_apart(batch.images, batch.joins) for batch in (found.fitting, found.held_out)]
    joined = [torch.cat(each) for each in zip(*parts, strict=True)]
    return list(zip(*joined, strict=True))


def colours(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (COUNT, size, size, 3), dtype=np.uint8)


def test_arrays_are_taken_in_the_order_of_the_models_inputs(tmp_path: Path) -> None:
    left, right = colours(6), colours(5)
    extra = np.arange(COUNT, dtype=np.float64)
    np.savez(tmp_path / "a.npz", right=right, extra=extra, left=left, labels=np.arange(COUNT) % 3)
    found = load_calibration(
        tmp_path / "a.npz", preprocessing=PLAIN, input_names=("left", "right", "extra", "unused")
    )
    assert found.input_shapes == ((3, 6, 6), (3, 5, 5), ())
    assert found.labelled
    for first, second, number in inputs_of(found):
        place = int(number)
        np.testing.assert_allclose(first.numpy(), left[place].transpose(2, 0, 1) / 255, atol=1e-6)
        np.testing.assert_allclose(second.numpy(), right[place].transpose(2, 0, 1) / 255, atol=1e-6)


def test_numbered_arrays_need_no_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", input_1=colours(5), input_0=np.ones((COUNT, 5), np.float32))
    assert load_calibration(tmp_path / "a.npz").input_shapes == ((5,), (3, 5, 5))


def test_preprocessing_is_for_images_and_numbers_stay(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(COUNT, 5)).astype(np.float32) * 50
    np.savez(tmp_path / "a.npz", input_0=colours(8), input_1=numbers)
    how = Preprocessing(resize=6, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    found = load_calibration(tmp_path / "a.npz", preprocessing=how)
    assert found.input_shapes == ((3, 6, 6), (5,))
    seen = {tuple(values.tolist()) for _, values in inputs_of(found)}
    assert seen == {tuple(row.tolist()) for row in numbers}
    assert min(float(image.min()) for image, _ in inputs_of(found)) < -0.8


def test_items_of_a_dataset_are_tuples_or_dictionaries_with_labels() -> None:
    pictures = [Image.fromarray(image) for image in colours(6)]
    given = list(zip(pictures, torch.randn(COUNT, 4), [0, 1] * (COUNT // 2), strict=True))
    forms = (
        [((image, vector), label) for image, vector, label in given],
        [([image, vector], label) for image, vector, label in given],
        [({"vector": vector, "image": image}, label) for image, vector, label in given],
        [{"label": label, "vector": vector, "image": image} for image, vector, label in given],
    )
    sets = [load_calibration(Items(f), preprocessing=PLAIN, input_names=("image", "vector")) for f in forms]
    for found in sets:
        assert found.input_shapes == ((3, 6, 6), (4,))
        assert torch.equal(found.fitting.images, sets[0].fitting.images)
        assert torch.equal(found.fitting.labels, sets[0].fitting.labels)
        assert found.fingerprint_sha256 == sets[0].fingerprint_sha256


def test_a_dictionary_of_an_image_and_a_label_is_one_input() -> None:
    items = [{"image": Image.fromarray(image), "label": i % 2} for i, image in enumerate(colours(6))]
    found = load_calibration(Items(items), preprocessing=PLAIN)
    assert found.input_shape == (3, 6, 6)
    assert found.fitting.joins == ()
    assert found.labelled


def test_copies_are_of_all_inputs_together() -> None:
    image = colours(4)[0]
    items = [((image, torch.tensor([float(i)])), 0) for i in range(COUNT)]
    found = load_calibration(Items(items), preprocessing=PLAIN)
    assert not any("copies" in warning for warning in found.warnings)
    same = load_calibration(Items([items[0]] * COUNT), preprocessing=PLAIN)
    assert any("exact copies" in warning for warning in same.warnings)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=2, max_size=4),
    st.integers(2, 6),
    st.integers(0, 2**16),
)
def test_any_shapes_come_back_as_they_were(shapes: list[tuple[int, ...]], count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    items = [(tuple(torch.rand(s, generator=generator) for s in shapes),) for _ in range(count)]
    found = load_calibration(Items(items), preprocessing=PLAIN)
    assert found.input_shapes == tuple(shapes)
    given_items = {tuple(round(float(v), 6) for t in item[0] for v in t.reshape(-1)) for item in items}
    rows = torch.cat([found.fitting.images, found.held_out.images])
    assert {tuple(round(float(v), 6) for v in row) for row in rows} == given_items


@pytest.mark.parametrize(
    ("value", "shape", "is_image"),
    [
        (np.zeros((8, 6, 4), np.float32), (8, 6, 4), False),
        (np.zeros((4, 6, 8), np.float32), (4, 6, 8), False),
        (np.zeros((6, 8, 3), np.float64), (6, 8, 3), False),
        (np.zeros((3, 6, 8), np.float32), (3, 6, 8), True),
        (np.zeros((6, 8, 3), np.uint8), (3, 6, 8), True),
        (np.zeros((6, 8), np.uint16), (1, 6, 8), True),
        (np.zeros((6, 8), np.int64), (6, 8), False),
        (np.zeros((6, 8), bool), (6, 8), False),
        (torch.zeros(5, dtype=torch.bfloat16), (5,), False),
        (torch.zeros(3, 4, 4, requires_grad=True), (3, 4, 4), True),
        (torch.zeros(2, 2, requires_grad=True), (2, 2), False),
        (3, (), False),
        ([1.5, 2.5], (2,), False),
    ],
    ids=lambda v: f"{v.dtype}-{tuple(v.shape)}" if hasattr(v, "dtype") else None,
)
def test_only_what_is_surely_an_image_is_read_as_one(
    value: Any, shape: tuple[int, ...], is_image: bool
) -> None:
    found = raw_input(value, ReadOptions(), "an input")
    assert tuple(found.pixels.shape) == shape
    assert found.is_image is is_image


@pytest.mark.parametrize(
    "value",
    [
        np.ones(3, np.complex64),
        np.array(["1", "2"]),
        np.array([None]),
        "text",
        {"a": 1},
        object(),
        [[1], [2, 3]],
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_numbers_is_refused(value: Any) -> None:
    with pytest.raises(CalibrationError, match="accepted are a tensor, an array, a PIL image or a number"):
        raw_input(value, ReadOptions(), "an input")


def test_the_notes_say_how_each_input_was_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", input_0=colours(6), input_1=np.zeros((COUNT, 8, 6, 4), np.float32))
    found = load_calibration(tmp_path / "a.npz", preprocessing=PLAIN)
    assert "the inputs of an item were read as: image 3x6x6, numbers as they are 8x6x4" in found.warnings


def test_a_file_with_labels_alone_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", labels=np.arange(4))
    for names in ((), ("image", "meta")):
        with pytest.raises(CalibrationError, match="has no array 'images'"):
            load_calibration(tmp_path / "a.npz", input_names=names)


def test_a_single_array_may_have_the_name_of_the_only_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=colours(6), labels=np.arange(COUNT) % 2)
    found = load_calibration(tmp_path / "a.npz", preprocessing=PLAIN, input_names=("image", "scale"))
    assert (found.input_shape, found.fitting.joins, found.labelled) == ((3, 6, 6), (), True)


def test_images_beside_another_input_of_the_model_are_not_dropped(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=colours(6), meta=np.zeros((COUNT, 2), np.float32))
    with pytest.raises(CalibrationError, match=r"has 'images' beside meta, .* image, meta; name every"):
        load_calibration(tmp_path / "a.npz", input_names=("image", "meta"))
    assert load_calibration(tmp_path / "a.npz", input_names=("x",)).input_shape == (3, 6, 6)
    both = load_calibration(tmp_path / "a.npz", preprocessing=PLAIN, input_names=("images", "meta"))
    assert both.input_shapes == ((3, 6, 6), (2,))


def test_items_of_several_inputs_fit_no_model_of_one_image_and_no_other_items() -> None:
    pair = ((torch.rand(3, 4, 4), torch.rand(2)), 0)
    with pytest.raises(CalibrationError, match="item 0 has 2 inputs, but the model takes one image of 3x4x4"):
        load_calibration(Items([pair] * 4), input_shape=(3, 4, 4))
    for items in ([pair, (torch.rand(3, 4, 4), 0)], [(torch.rand(3, 4, 4), 0), pair]):
        with pytest.raises(CalibrationError, match="inputs and those before another number; make all alike"):
            load_calibration(Items(items))


@pytest.mark.parametrize(
    ("arrays", "names", "message"),
    [
        (
            {"left": 4, "wrong": 4},
            ("left", "right"),
            "has left, wrong, and the model's inputs are left",
        ),
        (
            {"right": 4, "extra": 4},
            ("left", "right", "extra"),
            "accepted are those names from the first",
        ),
        (
            {"a": 4, "b": 4},
            (),
            "has a, b, and the model does not name its inputs; accepted are input_0",
        ),
        ({"left": 4, "right": 5}, ("left", "right"), "differ in length .left has 4, right has 5"),
        ({"left": 4}, ("right", "left"), "has no array 'images'; it has 'left'"),
    ],
    ids=str,
)
def test_other_arrays_are_refused(
    arrays: dict[str, int], names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **{name: np.zeros((n, 2), np.float32) for name, n in arrays.items()})
    with pytest.raises(CalibrationError, match=message):
        load_calibration(tmp_path / "a.npz", input_names=names)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([((torch.rand(3, 4, 4), torch.rand(n)), 0) for n in (2, 3)], "those before are 3x4x4 and 2 and"),
        ([((torch.rand(3, 4, 4), "text"), 0)] * 2, "input 1 of item 0 .* is a str; accepted are a tensor"),
        ([((torch.rand(3, 4, 4), torch.tensor(float("nan"))), 0)] * 2, "NaN or infinite"),
        ([({"a": torch.rand(2), "b": torch.rand(2)}, 0)] * 2, "has a, b, and the model does not name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "items",
)  # fmt: skip
def test_other_items_are_refused(items: list[Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        load_calibration(Items(items))
