"""Boxes of objects: read from COCO and YOLO files, checked, and found again in the model's input."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from image_files import noise, rectangle, save_as

from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.truth import Box, ImageBoxes, checked_box
from edgeprune.calibration import load_calibration, read_coco, read_yolo, to_input
from edgeprune.calibration.preprocess import preprocess
from edgeprune.errors import CalibrationError

NAMES = ("cat", "dog")
DOCUMENT = {
    "images": [
        {"id": 7, "file_name": "a.png", "height": 20, "width": 30},
        {"id": 9, "file_name": "sub/b.png", "height": 24, "width": 16},
        {"id": 3, "file_name": "elsewhere.png", "height": 5, "width": 5},
    ],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 18, "bbox": [1.5, 2, 3, 4.25], "iscrowd": 1},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 30, 20]},
        {"id": 3, "image_id": 9, "category_id": 2, "bbox": [0, 0, 16, 0]},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 2, "name": "cat"}],
}


def images_of(folder: Path) -> Path:
    save_as(folder / "a.png", noise(20, 30))
    save_as(folder / "sub" / "b.png", noise(24, 16))
    return folder


def coco_of(tmp_path: Path, document: Any) -> tuple[Path, Path]:
    path = tmp_path / "instances.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path, images_of(tmp_path / "images")


def changed(place: str, value: Any) -> dict[str, Any]:
    """``DOCUMENT`` with another value at ``annotations.0.bbox``."""
    document = copy.deepcopy(DOCUMENT)
    *way, last = place.split(".")
    target: Any = document
    for step in way:
        target = target[int(step) if step.isdecimal() else step]
    target[int(last) if last.isdecimal() else last] = value
    return document


# COCO


def test_coco_boxes_are_in_pixels_with_classes_in_the_order_of_their_ids(tmp_path: Path) -> None:
    found = read_coco(*coco_of(tmp_path, DOCUMENT))
    assert found.class_names == NAMES
    assert found.images == (
        ImageBoxes(file="a.png", size=(20, 30), boxes=(Box(corners=(0, 0, 30, 20), class_index=0),)),
        ImageBoxes(
            file="sub/b.png",
            size=(24, 16),
            boxes=(Box(corners=(1.5, 2, 4.5, 6.25), class_index=1, ignore=True),),
        ),
    )
    assert len(found.notes) == 2
    assert "1 of the 3 images" in found.notes[0]
    assert found.notes[1] == "1 box without area was left out, of 'sub/b.png'"


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (
            "annotations.0.bbox",
            [1, 2, -3, 4],
            r"annotation 1, has a box of negative size, .* = \(1, 2, -2, 6\)",
        ),
        ("annotations.0.bbox", [1, 2, 3, -4], "negative size"),
        ("annotations.0.bbox", [1, 2, 30, 4], "outside of its image of 24x16 pixels"),
        ("annotations.0.bbox", [-3, 2, 5, 4], "outside of its image"),
        ("annotations.0.bbox", [1, 2, 3], r"'bbox' = \[1, 2, 3\]; accepted are four finite numbers"),
        ("annotations.0.bbox", [1, 2, 3, "4"], "four finite numbers"),
        ("annotations.0.bbox", None, "four finite numbers"),
        ("annotations.0.bbox", [1e308, 2, 1e308, 4], "accepted are finite numbers"),
        ("annotations.0.bbox", [math.nan, 2, 3, 4], "is not JSON"),
        ("annotations.0.iscrowd", 2, "'iscrowd' = 2; accepted is 0 or 1"),
        ("annotations.0.category_id", 5, "is of category 5, which 'categories' does not list"),
        ("annotations.0.category_id", "2", "'category_id' = '2'; accepted is a whole number"),
        ("annotations.0.image_id", 5, "is of image 5, which 'images' does not list"),
        ("annotations.0", 5, "no list 'annotations' of objects"),
        ("images.0.height", 0, "image 0, has 'height' = 0; accepted is a whole number from 1"),
        (
            "images.0.height",
            21,
            "'a.png' with 21x30 pixels, but it has 20x30; accepted is the size of the file",
        ),
        ("images.0.file_name", "", "'file_name' = ''; accepted is a text"),
        ("images.0.file_name", "c.png", "1 of 2 images in .* are not in .*: 'a.png'; accepted are images"),
        ("images.0.id", 9, "image 1, has the id or the file name of another"),
        ("images.0.file_name", "sub//b.png", "image 1, has the id or the file name of another"),
        ("images", {}, "no list 'images' of objects; accepted are 'images', 'annotations' and 'categories'"),
        ("categories.0.id", 2, "category 1, has the id 2 of another"),
        ("categories.0.name", 4, "category 0, has 'name' = 4; accepted is a text"),
    ],
)
def test_bad_coco_is_one_sentence(tmp_path: Path, place: str, value: Any, sentence: str) -> None:
    with pytest.raises(CalibrationError, match=sentence) as caught:
        read_coco(*coco_of(tmp_path, changed(place, value)))
    assert "instances.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "null", '{"images": []}', "[" * 100000])
def test_what_is_no_coco(tmp_path: Path, text: str) -> None:
    with pytest.raises(CalibrationError, match="the COCO file"):
        read_coco(*coco_of(tmp_path, text))


def test_a_missing_file_or_folder_of_boxes(tmp_path: Path) -> None:
    path, folder = coco_of(tmp_path, DOCUMENT)
    with pytest.raises(CalibrationError, match=r"none\.json' cannot be read"):
        read_coco(tmp_path / "none.json", folder)
    with pytest.raises(CalibrationError, match="is no folder of images"):
        read_coco(path, tmp_path / "none")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_boxes_are_of_the_image_as_it_is_read(tmp_path: Path, suffix: str) -> None:
    save_as(tmp_path / "images" / f"a{suffix}", noise(20, 30), 6)
    document = {
        **DOCUMENT,
        "annotations": [],
        "images": [{**DOCUMENT["images"][0], "file_name": f"a{suffix}"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document))
    assert read_coco(path, tmp_path / "images", exif=False).images[0].size == (20, 30)
    with pytest.raises(
        CalibrationError, match="30x20 when it is turned by its EXIF orientation: give --no-exif"
    ):
        read_coco(path, tmp_path / "images")
    (tmp_path / "images" / "a.txt").write_text("0 0.5 0.25 1 0.5\n")
    found = read_yolo(tmp_path / "images", class_names=NAMES)
    assert found.images[0].size == (30, 20)
    assert found.images[0].boxes[0].corners == (0, 0, 20, 15)
    for i in range(2):
        save_as(tmp_path / "same" / f"{i}{suffix}", noise(20, 30, seed=i), 6)
    assert load_calibration(tmp_path / "same").input_shape == (3, 30, 20)


# YOLO


def test_yolo_boxes_are_in_pixels(tmp_path: Path) -> None:
    folder = images_of(tmp_path / "images" / "val")
    texts = tmp_path / "labels" / "val"
    (texts / "sub").mkdir(parents=True)
    (texts / "sub" / "b.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.25 0.25 0.5 0.5\n")
    (texts / "other.txt").write_text("0 0.5 0.5 1 1\n")
    (texts / "classes.txt").write_text("cat\ndog\n")
    found = read_yolo(folder)
    assert found == read_yolo(folder, texts, class_names=NAMES)
    assert found.class_names == NAMES
    assert found.images == (
        ImageBoxes(file="a.png", size=(20, 30)),
        ImageBoxes(
            file="sub/b.png",
            size=(24, 16),
            boxes=(
                Box(corners=(6, 6, 10, 18), class_index=1),
                Box(corners=(0, 0, 8, 12), class_index=0),
            ),
        ),
    )
    assert found.notes == (
        "1 of 2 images have no text with boxes, and so no objects",
        "1 texts with boxes are of no image: 'other.txt'",
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 0.5 0.5 1", "line 2 of .*a.txt' is '0 0.5 0.5 1'; accepted are five numbers, a class from 0"),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9", "accepted are five numbers"),
        ("cat 0.5 0.5 1 1", "accepted are five numbers"),
        ("-1 0.5 0.5 1 1", "accepted are five numbers"),
        ("0.5 0.5 0.5 1 1", "accepted are five numbers"),
        ("0 x 0.5 1 1", "accepted are five numbers"),
        ("0 nan 0.5 1 1", r"has the box \(nan, 0, nan, 20\); accepted are finite numbers"),
        ("0 inf 0.5 1 1", "accepted are finite numbers"),
        ("0 0.5 0.5 -0.1 1", "negative size"),
        ("0 0.9 0.5 0.5 1", "outside of its image of 20x30 pixels"),
        ("0 100 50 20 10", "outside of its image"),
        ("2 0.5 0.5 1 1", r"has the class 2, but there are 2 names of classes \(\('cat', 'dog'\)\)"),
        ("99999999999 0.5 0.5 1 1", "accepted are five numbers"),
    ],
)
def test_bad_yolo_is_one_sentence(tmp_path: Path, line: str, sentence: str) -> None:
    folder = images_of(tmp_path)
    (folder / "a.txt").write_text(f"0 0.5 0.5 1 1\n{line}\n")
    with pytest.raises(CalibrationError, match=sentence):
        read_yolo(folder, class_names=NAMES)


def test_yolo_without_texts_names_or_text(tmp_path: Path) -> None:
    folder = images_of(tmp_path)
    with pytest.raises(CalibrationError, match=r"there is no text with boxes in .* for any of the 2 images"):
        read_yolo(folder, class_names=NAMES)
    (folder / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CalibrationError, match="there are no names of classes"):
        read_yolo(folder)
    with pytest.raises(CalibrationError, match=r"a\.txt' is not UTF-8"):
        read_yolo(folder, class_names=NAMES)


def test_rounding_at_the_edge_is_cut() -> None:
    box = Box(corners=(-0.4, 0, 10.6, 9), class_index=0)
    assert checked_box(box, (9, 10), NAMES, "it").corners == (0, 0, 10, 9)
    with pytest.raises(CalibrationError, match="outside"):
        checked_box(Box(corners=(0, 0, 11.5, 9), class_index=0), (9, 10), NAMES, "it")


# In the model's input

SIDES = st.integers(24, 80)
SIZES = st.integers(16, 100)
PREPROCESSINGS = st.one_of(
    st.builds(Preprocessing, letterbox=SIZES | st.tuples(SIZES, SIZES), pad=st.just(0)),
    st.builds(Preprocessing, resize=SIZES | st.tuples(SIZES, SIZES)),
    st.builds(Preprocessing, resize=SIZES, crop=st.integers(8, 16)),
    st.builds(Preprocessing, crop=st.integers(8, 24) | st.tuples(st.integers(8, 24), st.integers(8, 24))),
    st.just(Preprocessing()),
)


@given(SIDES, SIDES, PREPROCESSINGS, st.data())
def test_a_bright_rectangle_is_where_its_box_is(
    height: int, width: int, options: Preprocessing, data: st.DataObject
) -> None:
    x1, y1 = data.draw(st.integers(0, width - 10)), data.draw(st.integers(0, height - 10))
    x2, y2 = data.draw(st.integers(x1 + 10, width)), data.draw(st.integers(y1 + 10, height))
    image = ImageBoxes(
        file="a.png", size=(height, width), boxes=(Box(corners=(x1, y1, x2, y2), class_index=1, ignore=True),)
    )
    moved = to_input(image, options)
    pixels = torch.from_numpy(rectangle(height, width, (x1, y1, x2, y2))).permute(2, 0, 1)
    bright = preprocess(pixels, options, channels=3, where="it")[0] > 0.5
    assert moved.size == tuple(bright.shape)
    if not moved.boxes:
        assert not bright.any()
        return
    (box,) = moved.boxes
    assert (box.class_index, box.ignore) == (1, True)
    left, top, right, bottom = box.corners
    assert 0 <= left < right <= moved.size[1]
    assert 0 <= top < bottom <= moved.size[0]
    assume(right - left >= 3 and bottom - top >= 3)
    rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
    seen = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    assert max(abs(a - b) for a, b in zip(seen, box.corners, strict=True)) <= 1


def test_boxes_outside_of_the_crop_are_left_out_and_others_cut() -> None:
    corner, middle = Box(corners=(0, 0, 4, 4), class_index=0), Box(corners=(0, 10, 20, 30), class_index=1)
    image = ImageBoxes(file="a.png", size=(40, 20), boxes=(corner, middle))
    assert to_input(image, Preprocessing(crop=10)).boxes == (Box(corners=(0, 0, 10, 10), class_index=1),)
    with pytest.raises(CalibrationError, match=r"the image 'a\.png' is 40x20 pixels, smaller than --crop 30"):
        to_input(image, Preprocessing(crop=30))


def test_a_letterbox_moves_boxes_by_its_borders() -> None:
    image = ImageBoxes(file="a", size=(480, 640), boxes=(Box(corners=(64, 48, 640, 480), class_index=0),))
    moved = to_input(image, Preprocessing(letterbox=320))
    assert moved == ImageBoxes(
        file="a", size=(320, 320), boxes=(Box(corners=(32, 64, 320, 280), class_index=0),)
    )
