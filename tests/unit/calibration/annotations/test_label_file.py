"""Labels of a folder of images from a CSV file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import noise, save_as

from edgeprune.artifacts.calibration import CalibrationSet, Preprocessing
from edgeprune.calibration import load_calibration
from edgeprune.calibration.annotations.label_file import read_labels
from edgeprune.errors import CalibrationError, UsageError

PLAIN = Preprocessing(mean=(0.0,), std=(1.0,))


def folder_of(folder: Path, count: int = 6) -> Path:
    for i in range(count):
        save_as(folder / f"{i}.png", noise(8, 8, seed=i))
    return folder


def label_of(found: CalibrationSet, seed: int) -> int:
    """The label of the image of that seed."""
    wanted = torch.from_numpy(noise(8, 8, seed=seed)).permute(2, 0, 1).float() / 255
    for part in (found.fitting, found.held_out):
        assert part.labels is not None
        for image, label in zip(part.images, part.labels, strict=True):
            if torch.equal(image, wanted):
                return int(label)
    raise AssertionError(f"image {seed} is not there")


def csv_of(labels: list[str], header: str = "file,label") -> str:
    return "\n".join([header, *(f"{i}.png,{label}" for i, label in enumerate(labels))]) + "\n"


NUMBERS = ["4", "0", "2", "2", "0", "4"]


@pytest.mark.parametrize("place", ["inside", "beside", "elsewhere"])
def test_labels_stay_with_their_images(tmp_path: Path, place: str) -> None:
    folder = folder_of(tmp_path / "data" / "images")
    where = {"inside": folder, "beside": folder.parent, "elsewhere": tmp_path}[place]
    (where / "labels.csv").write_text(csv_of(NUMBERS))
    given = where / "labels.csv" if place == "elsewhere" else None
    found = load_calibration(folder, labels=given, preprocessing=PLAIN)
    assert [label_of(found, i) for i in range(6)] == list(map(int, NUMBERS))
    assert found.class_names is None
    assert any("labels come from" in note for note in found.warnings)
    assert not any("left out" in note for note in found.warnings)


def test_names_are_numbered_in_alphabetical_order_and_that_is_said(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "labels.csv").write_text(csv_of(["dog", "cat", "eel", "cat", "dog", "eel"]))
    found = load_calibration(folder, preprocessing=PLAIN)
    assert [label_of(found, i) for i in range(6)] == [1, 0, 2, 0, 1, 2]
    assert found.class_names == ("cat", "dog", "eel")
    assert (
        "the 3 classes are numbered in alphabetical order: 0 is 'cat', 1 is 'dog', 2 is 'eel'"
        in found.warnings
    )


def test_a_file_of_labels_counts_instead_of_class_folders(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "images" / "a")
    csv = tmp_path / "mine.csv"
    csv.write_text(csv_of(NUMBERS).replace("\n", "\na/").removesuffix("a/"))
    found = load_calibration(folder.parent, labels=csv, preprocessing=PLAIN)
    assert [label_of(found, i) for i in range(6)] == list(map(int, NUMBERS))
    (tmp_path / "labels.csv").write_text("nothing of the kind")
    assert load_calibration(folder.parent, preprocessing=PLAIN).class_names == ("a",)


@pytest.mark.parametrize("text", ["file,label\nother.png,1\n", "name;class\n", "", "file,label\n,\n", '"'])
def test_a_file_beside_the_images_that_is_of_others_is_told_and_not_used(tmp_path: Path, text: str) -> None:
    folder = folder_of(tmp_path / "images")
    (tmp_path / "labels.csv").write_text(text)
    found = load_calibration(folder, preprocessing=PLAIN)
    assert not found.labelled
    assert any("labels.csv' beside the images was not used: it lists none" in n for n in found.warnings)
    with pytest.raises(CalibrationError):
        load_calibration(folder, labels=tmp_path / "labels.csv", preprocessing=PLAIN)


def test_names_may_count_from_the_folder_of_the_csv(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "images")
    (tmp_path / "labels.csv").write_text(
        csv_of(NUMBERS).replace("\n", "\n./images/").removesuffix("./images/")
    )
    found = load_calibration(folder, preprocessing=PLAIN)
    assert [label_of(found, i) for i in range(6)] == list(map(int, NUMBERS))


def test_columns_quotes_and_empty_lines(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 2)
    (folder / "labels.csv").write_bytes(
        b'\xef\xbb\xbfsplit, Label ,File\r\ntrain,"big, cat",0.png\r\n\r\ntrain,ant,"1.png"\r\n'
    )
    found = load_calibration(folder, preprocessing=PLAIN)
    assert found.class_names == ("ant", "big, cat")
    assert label_of(found, 0) == 1


def test_file_names_in_no_known_encoding(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 3)
    os.rename(folder / "2.png", os.path.join(os.fsencode(folder), b"caf\xe9.png"))
    (folder / "labels.csv").write_bytes(b"file,label\n0.png,0\n1.png,1\ncaf\xe9.png,7\n")
    assert label_of(load_calibration(folder, preprocessing=PLAIN), 2) == 7


def test_files_that_are_not_among_the_images_are_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 2)
    (folder / "labels.csv").write_text(csv_of(["a", "b", "c", "d", "d", "d", "d"]))
    found = load_calibration(folder, preprocessing=PLAIN)
    assert found.class_names == ("a", "b", "c", "d")
    note = next(note for note in found.warnings if "not among" in note)
    assert note.startswith("5 files that the labels")
    assert note.endswith("are not among the images: '2.png', '3.png', '4.png' and 2 more")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "have the header ''; accepted is file,label in the first line"),
        ("name,class\n0.png,1", "have the header 'name,class'"),
        ("file;label\n0.png;1", "have the header 'file;label'"),
        ("file,label,label\n0.png,1,1", "have the header 'file,label,label'"),
        ("file,label\n0.png,1\n", "1 of 2 images have no label in .*: '1.png'; accepted is a line for each"),
        ("file,label\n", "2 of 2 images have no label in .*: '0.png', '1.png'; accepted"),
        ("file,label\n0.png,1\n1.png,", "have no label in line 3"),
        ("file,label\n0.png,1\n1.png", "have no label in line 3"),
        ("file,label\n0.png,1\n,1", "have no file in line 3"),
        ("file,label\n0.png,1\n1.png,-1", "have the negative label '-1' in line 3"),
        ("file,label\n0.png,1\n1.png,cat", "are partly numbers, such as 1, and partly names, such as 'cat'"),
        ("file,label\n0.png,1\n1.png,2\n./0.png,3", "have './0.png' as '1' and again as '3' in line 4"),
        ('file,label\n0.png,"1', "are no CSV"),
    ],
)
def test_bad_labels_are_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    folder = folder_of(tmp_path, 2)
    (folder / "labels.csv").write_text(text)
    with pytest.raises(CalibrationError, match=sentence) as caught:
        load_calibration(folder, preprocessing=PLAIN)
    assert caught.value.exit_status == 4


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_a_file_of_labels_that_is_none(tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path / "images", 2)
    path = tmp_path / "mine.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(
        CalibrationError, match=r"the labels '.*mine\.csv' .*; name another file with --labels"
    ):
        load_calibration(folder, labels=path, preprocessing=PLAIN)


def test_labels_of_images_in_no_folder(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8))
    for source in (tmp_path / "a.npz", "a.module:function", [np.zeros((8, 8), np.uint8)] * 4):
        with pytest.raises(UsageError, match="is no folder of images; accepted are labels in the array"):
            load_calibration(source, labels="x.csv")  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_any_bytes_are_labels_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("labels")
    path = folder / "labels.csv"
    path.write_bytes(b"file,label\na.png," + data)
    with contextlib.suppress(CalibrationError):
        assert len(read_labels(path, folder, [folder / "a.png"]).labels) == 1


def test_labels_change_the_fingerprint(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    without = load_calibration(folder, preprocessing=PLAIN).fingerprint_sha256
    (folder / "labels.csv").write_text(csv_of(NUMBERS))
    assert load_calibration(folder, preprocessing=PLAIN).fingerprint_sha256 != without
