"""Sizes: exact, cropped and letterboxed images, where every pixel goes, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from image_files import noise, rectangle, save_as

from edgeprune.artifacts.calibration import Ground, Preprocessing
from edgeprune.calibration import load_calibration
from edgeprune.calibration.fingerprint import fingerprint
from edgeprune.calibration.geometry import place
from edgeprune.calibration.preprocess import preprocess
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.limits import IMAGE_SIZES
from edgeprune.options.cards import PreprocessingOptions, check_preprocessing, merge_preprocessing, read_card

SIDES = st.integers(1, 90)
SIZES = st.one_of(SIDES, st.tuples(SIDES, SIDES))


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def both(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


@given(SIDES, SIDES, st.tuples(SIDES, SIDES))
def test_height_and_width_are_made_exactly(height: int, width: int, size: tuple[int, int]) -> None:
    image = preprocess(as_tensor(noise(height, width)), Preprocessing(resize=size), channels=3, where="it")
    assert image.shape == (3, *size)


@given(SIDES, SIDES, SIDES)
def test_one_number_is_the_shorter_side(height: int, width: int, size: int) -> None:
    geometry = place((height, width), Preprocessing(resize=size), "it")
    assert min(geometry.output) == size
    assert max(geometry.output) == int(size * max(height, width) / min(height, width))


@given(SIDES, SIDES, SIZES)
def test_a_crop_is_the_middle_or_refused(height: int, width: int, size: int | tuple[int, int]) -> None:
    options, (rows, columns) = Preprocessing(crop=size), both(size)
    pixels = noise(height, width)
    if rows > height or columns > width:
        with pytest.raises(CalibrationError, match=rf"it is {height}x{width} pixels, smaller than --crop"):
            preprocess(as_tensor(pixels), options, channels=3, where="it")
        return
    image = preprocess(as_tensor(pixels), options, channels=3, where="it")
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    expected = as_tensor(pixels[top : top + rows, left : left + columns]).float() / 255
    assert torch.equal(image, expected)


@given(SIDES, SIDES, SIZES, st.integers(0, 255))
def test_a_letterbox_keeps_the_ratio_and_fills_the_borders(
    height: int, width: int, size: int | tuple[int, int], pad: int
) -> None:
    options = Preprocessing(letterbox=size, pad=pad)
    geometry = place((height, width), options, "it")
    rows, columns = both(size)
    assert geometry.output == (rows, columns)
    assert geometry.resized[0] == rows or geometry.resized[1] == columns
    assert abs(geometry.resized[0] - max(height * min(rows / height, columns / width), 1)) <= 0.5
    assert abs(rows - geometry.resized[0] - 2 * geometry.top) <= 1
    assert abs(columns - geometry.resized[1] - 2 * geometry.left) <= 1
    white = torch.full((3, height, width), 255, dtype=torch.uint8)
    image = preprocess(white, options, channels=3, where="it")
    inside = torch.zeros(rows, columns, dtype=torch.bool)
    inside[
        geometry.top : geometry.top + geometry.resized[0], geometry.left : geometry.left + geometry.resized[1]
    ] = True
    assert (image[:, inside] == 1).all()
    assert torch.equal(image[:, ~inside], torch.full_like(image[:, ~inside], pad / 255))


def test_the_border_is_the_same_grey_for_floating_point() -> None:
    whole, real = (
        preprocess(image, Preprocessing(letterbox=8), channels=3, where="it")
        for image in (torch.full((3, 4, 8), 255, dtype=torch.uint8), torch.ones(3, 4, 8))
    )
    assert torch.equal(whole, real)
    assert whole.unique().tolist() == pytest.approx([114 / 255, 1])


PREPROCESSINGS = st.one_of(
    st.builds(Preprocessing, letterbox=SIZES),
    st.builds(Preprocessing, resize=st.none() | SIZES, crop=st.none() | SIZES),
)


@given(st.integers(20, 90), st.integers(20, 90), PREPROCESSINGS, st.data())
def test_a_place_in_the_image_is_found_again_in_the_input(
    height: int, width: int, options: Preprocessing, data: st.DataObject
) -> None:
    try:
        check_preprocessing(options)
        geometry = place((height, width), options, "it")
    except (UsageError, CalibrationError):
        assume(False)
    assume(min(geometry.scale) >= 0.5 and max(geometry.scale) < 8)
    x1, y1 = data.draw(st.integers(0, width - 12)), data.draw(st.integers(0, height - 12))
    x2, y2 = data.draw(st.integers(x1 + 8, width)), data.draw(st.integers(y1 + 8, height))
    pixels = as_tensor(rectangle(height, width, (x1, y1, x2, y2)))
    image = preprocess(pixels, Preprocessing(**{**vars(options), "pad": 0}), channels=3, where="it")[0] > 0.5
    (left, top), (right, bottom) = geometry.to_input(x1, y1), geometry.to_input(x2, y2)
    rows, columns = geometry.output
    left, right = (min(max(x, 0), columns) for x in (left, right))
    top, bottom = (min(max(y, 0), rows) for y in (top, bottom))
    assume(right - left >= 3 and bottom - top >= 3)
    seen_rows, seen_columns = image.any(1).nonzero()[:, 0], image.any(0).nonzero()[:, 0]
    assert abs(int(seen_columns.min()) - left) <= 1
    assert abs(int(seen_columns.max()) + 1 - right) <= 1
    assert abs(int(seen_rows.min()) - top) <= 1
    assert abs(int(seen_rows.max()) + 1 - bottom) <= 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Preprocessing(letterbox=8, resize=9), "--letterbox 8 and --resize 9 were given; accepted is"),
        (Preprocessing(letterbox=(8, 9), crop=9), "--letterbox 8x9 and --crop 9 were given; accepted is"),
        (Preprocessing(pad=7), "--pad 7 was given without --letterbox"),
        (Preprocessing(letterbox=8, pad=256), "--pad 256 was given; accepted is a whole number from 0"),
        (Preprocessing(resize=8, crop=9), "--crop 9 is larger than --resize 8, which comes before it"),
        (Preprocessing(resize=(8, 20), crop=9), "--crop 9 is larger than --resize 8x20"),
        (Preprocessing(resize=8, crop=(9, 10)), "--crop 9x10 is larger than --resize 8,"),
        (Preprocessing(resize=(8, 0)), r"--resize \(8, 0\) was given; accepted is"),
        (Preprocessing(crop=(8, 8, 8)), r"--crop \(8, 8, 8\) was given"),  # type: ignore[arg-type]
        (Preprocessing(letterbox=9000), "--letterbox 9000 was given"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(
    tmp_path: Path, options: Preprocessing, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_preprocessing(options)
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(UsageError, match=sentence):
        load_calibration(tmp_path / "a.npz", preprocessing=options)


def test_a_crop_across_the_longer_side_is_accepted() -> None:
    check_preprocessing(Preprocessing(resize=8, crop=(8, 30)))
    assert place((10, 40), Preprocessing(resize=8, crop=(8, 30)), "it").output == (8, 30)


@pytest.mark.parametrize(
    ("value", "size"),
    [("64", 64), (" 64x96 ", (64, 96)), ("64,96", (64, 96)), ("64X96", (64, 96)), (64, 64), ([6, 9], (6, 9))],
)
def test_sizes_as_they_are_written(value: object, size: object) -> None:
    assert IMAGE_SIZES.read(value) == size
    assert IMAGE_SIZES.reader("--crop")(value) == size


@pytest.mark.parametrize(
    "value",
    ["", "x", "64x", "x9", "6x9x3", "0", "-4", "6.5", "9x0", "9" * 50, "٣", True, 2.0, [6], [6, True], None],
)
def test_what_is_no_size(value: object) -> None:
    assert IMAGE_SIZES.read(value) is None
    with pytest.raises(
        UsageError, match=r"--crop .* was given; accepted is a whole number from 1 to 8192 of"
    ):
        IMAGE_SIZES.reader("--crop")(value)


def test_cards_have_the_same_names(tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text('letterbox = [48, 64]\npad = 0\nexif = false\nground = "white"\n')
    assert read_card(card).preprocessing == Preprocessing(
        letterbox=(48, 64), pad=0, exif=False, ground=Ground.WHITE
    )
    card.write_text('resize = "64x96"\ncrop = [60, 90]\n')
    assert read_card(card).preprocessing == Preprocessing(resize=(64, 96), crop=(60, 90))
    for text, sentence in (
        ("letterbox = 8\ncrop = 8", "card.toml' is contradictory: --letterbox 8 and --crop 8"),
        ('resize = "8x"', "'resize' = '8x', but a whole number from 1 to 8192 of pixels, or height x width"),
        ("pad = 300", "'pad' = 300, but a whole number from 0 to 255"),
        ("exif = 1", "'exif' = 1, but true or false"),
        ('ground = "red"', "'ground' = 'red', but 'black' or 'white'"),
    ):
        card.write_text(text)
        with pytest.raises(CalibrationError, match=sentence):
            read_card(card)


def test_a_size_asked_for_replaces_the_sizes_of_a_card_that_exclude_it() -> None:
    cropped, boxed = Preprocessing(resize=9, crop=8), Preprocessing(letterbox=9, pad=1, mean=(0.5,))
    assert merge_preprocessing(cropped, PreprocessingOptions(letterbox=7)) == Preprocessing(letterbox=7)
    assert merge_preprocessing(boxed, PreprocessingOptions(resize=7)) == Preprocessing(resize=7, mean=(0.5,))
    assert merge_preprocessing(boxed, PreprocessingOptions(letterbox=8)).pad == 1
    with pytest.raises(UsageError, match="--letterbox 9 and --crop 4"):
        check_preprocessing(merge_preprocessing(boxed, PreprocessingOptions(crop=4)))
    asked = PreprocessingOptions(letterbox=7)
    assert asked.over(PreprocessingOptions(resize=9, crop=8, pad=3)) == PreprocessingOptions(
        letterbox=7, pad=3
    )


def test_images_that_are_enlarged_are_counted(tmp_path: Path) -> None:
    for i in range(3):
        save_as(tmp_path / f"{i}.png", noise(32, 32, seed=i))
    save_as(tmp_path / "4.png", noise(300, 320))
    found = load_calibration(tmp_path, preprocessing=Preprocessing(resize=224, crop=224))
    notes = [note for note in found.warnings if "enlarged" in note]
    assert len(notes) == 1
    assert "3 of 4 images were enlarged by resizing, up to 7 times (32x32 to 224x224 pixels)" in notes[0]
    found = load_calibration(tmp_path, preprocessing=Preprocessing(resize=32, crop=32))
    assert not any("enlarged" in note for note in found.warnings)


def test_a_long_image_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"it resized to 8192x163840000 pixels would take .* GiB"):
        preprocess(
            torch.zeros(1, 1, 20000, dtype=torch.uint8), Preprocessing(resize=8192), channels=1, where="it"
        )


def test_the_fingerprint_of_old_preprocessing_stays_and_new_fields_change_it() -> None:
    old = Preprocessing(resize=9, crop=8, mean=(0.5,), std=(0.25,))
    known = "516a2c9744287d3e415a9315f1941266"
    prints = {
        fingerprint([b"a"], [0], options)
        for options in (
            old,
            Preprocessing(resize=(9, 9), crop=8, mean=(0.5,), std=(0.25,)),
            Preprocessing(resize=9, crop=8, mean=(0.5,), std=(0.25,), exif=False),
            Preprocessing(resize=9, crop=8, mean=(0.5,), std=(0.25,), ground=Ground.WHITE),
            Preprocessing(letterbox=8),
            Preprocessing(letterbox=8, pad=0),
            Preprocessing(letterbox=(8, 9)),
            Preprocessing(),
        )
    }
    assert len(prints) == 8
    assert fingerprint([b"a"], [0], old).startswith(known)


@pytest.mark.parametrize("source", [(20, 10), (20, 1), (2, 2)])
def test_an_image_of_one_column_has_the_means_of_its_rows(source: tuple[int, int]) -> None:
    """As those of one row are, on their side; torch itself repeats the first row there."""
    pixels = torch.rand(3, *source)
    upright = preprocess(pixels, Preprocessing(resize=(7, 1)), channels=3, where="it")
    on_its_side = preprocess(pixels.transpose(1, 2), Preprocessing(resize=(1, 7)), channels=3, where="it")
    assert torch.equal(upright, on_its_side.transpose(1, 2))
    assert float(upright.std(1).min()) > 0
