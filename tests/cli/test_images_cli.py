"""Images of any size, name and turn, and their labels, as a user gives them on the command line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import save_as
from onnx_models import written
from small_project import DIGITS_DATA, DIGITS_MODEL, digits_network, sentence

NORMALISED = ("--mean", "0.3037", "--std", "0.3749", "--threads", "1", "--json")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and a folder of images in no known encoding, their labels in a CSV file."""
    place = tmp_path_factory.mktemp("digits")
    written(digits_network(), place / "digits.onnx", (1, 8, 8))
    folder = Path(os.fsdecode(os.path.join(os.fsencode(place), b"caf\xe9")))
    lines = [b"file,label"]
    with np.load(DIGITS_DATA) as data:
        for i, (pixels, label) in enumerate(zip(data["images"][:200], data["labels"][:200], strict=True)):
            save_as(folder / "x.png", pixels.reshape(8, 8))
            name = b"\xff%03d.png" % i
            os.rename(folder / "x.png", os.path.join(os.fsencode(folder), name))
            lines.append(name + b",%d" % label)
    (folder / "labels.csv").write_bytes(b"\n".join(lines))
    return place


def images_of(place: Path) -> str:
    return next(str(path) for path in place.iterdir() if path.is_dir())


def test_names_in_no_known_encoding_and_labels_beside(edgeprune: Any, digits: Path, tmp_path: Path) -> None:
    images = images_of(digits)
    asked = ("quantize", "digits.onnx", "-o", str(tmp_path / "out.onnx"), *NORMALISED)
    done = edgeprune(*asked, "--calibration", images, cwd=digits)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["accuracy_kind"] == "top-1 accuracy"
    assert found["accuracy"][0]["value"] > 0.9
    assert any("labels come from" in note for note in found["notes"])
    assert "labels come from" not in done.stderr, "a fact, told once"
    own = tmp_path / "own.csv"
    shutil.copy(Path(images) / "labels.csv", own)
    again = edgeprune(*asked, "--overwrite", "--calibration", images, "--labels", str(own), cwd=digits)
    assert json.loads(again.stdout)["accuracy"] == found["accuracy"]


def test_a_letterbox_and_its_notes(edgeprune: Any, digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (3, 4), dtype=np.uint8)
        save_as(folder / f"{i}.png", pixels, 6 if i < 5 else None)
    asked = ("quantize", str(digits / "digits.onnx"), "--calibration", str(folder), *NORMALISED)
    done = edgeprune(*asked, "--letterbox", "8x8", "--pad", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    notes = " ".join(json.loads(done.stdout)["notes"])
    assert "5 of 40 images were turned upright by their EXIF orientation" in notes
    assert "40 of 40 images were enlarged by resizing, up to 2 times" in notes
    stored = edgeprune(*asked, "--letterbox", "8", "--no-exif", "--overwrite", cwd=tmp_path)
    assert "5 of 40 images have an EXIF orientation and were not turned" in stored.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--letterbox", "8", "--resize", "9"), "--letterbox 8 and --resize 9 were given; accepted is"),
        (("--letterbox", "8x9", "--crop", "9"), "--letterbox 8x9 and --crop 9 were given"),
        (("--pad", "9"), "--pad 9 was given without --letterbox"),
        (("--pad", "256"), "--pad 256 was given; accepted is a whole number from 0 to 255"),
        (("--resize", "8", "--crop", "9"), "--crop 9 is larger than --resize 8"),
        (
            ("--resize", "8x"),
            "--resize 8x was given; accepted is a whole number from 1 to 8192 of pixels, or",
        ),
        (("--crop", "0x9"), "--crop 0x9 was given"),
        (("--labels", "mine.csv"), "is no folder of images; accepted are labels in the array 'labels'"),
    ],
)
def test_what_contradicts_itself_is_one_sentence(
    edgeprune: Any, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    asked = ("compress", *DIGITS_MODEL, "--calibration", DIGITS_DATA, "-o", "out")
    done = edgeprune(*asked, *options, cwd=tmp_path)
    assert words in sentence(done, 2)
    assert not (tmp_path / "out").exists()


def test_labels_that_are_not_there(edgeprune: Any, digits: Path, tmp_path: Path) -> None:
    asked = ("quantize", "digits.onnx", "--calibration", images_of(digits), "-o", str(tmp_path / "a.onnx"))
    done = edgeprune(*asked, "--labels", str(tmp_path / "none.csv"), cwd=digits)
    assert "none.csv' cannot be read (No such file or directory); name another file" in sentence(done, 4)


def test_labels_of_the_project_file_belong_to_its_images(
    edgeprune: Any, digits: Path, tmp_path: Path
) -> None:
    shutil.copy(digits / "digits.onnx", tmp_path / "digits.onnx")
    (tmp_path / "edgeprune.toml").write_text(
        'calibration = "elsewhere"\nlabels = "none.csv"\n[preprocessing]\nletterbox = "8x8"\npad = 3\n'
    )
    asked = ("quantize", "digits.onnx", "--calibration", DIGITS_DATA, "--threads", "1", "--json")
    done = edgeprune(*asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = edgeprune("config", "show", "quantize", "digits.onnx", "--json", cwd=tmp_path)
    values = {row["option"]: row["value"] for row in json.loads(shown.stdout)}
    assert (values["--letterbox"], values["--pad"]) == ("8x8", "3")


def test_a_folder_with_the_labels_is_not_replaced(edgeprune: Any, digits: Path, tmp_path: Path) -> None:
    asked = ("compress", *DIGITS_MODEL, "--calibration", images_of(digits), "-o", "out", "--overwrite")
    out = tmp_path / "out"
    out.mkdir()
    (out / "labels.csv").write_text("file,label\n")
    done = edgeprune(*asked, "--labels", "out/labels.csv", cwd=tmp_path)
    assert done.returncode == 7
    assert (out / "labels.csv").exists()
