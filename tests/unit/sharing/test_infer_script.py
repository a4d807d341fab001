"""The script for the device: it sees an image as edgeprune does, without torch."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import noise, save_as
from onnx import TensorProto, helper
from PIL import Image

from edgeprune.artifacts.calibration import ChannelOrder, Ground, Preprocessing
from edgeprune.calibration.preprocess import preprocess
from edgeprune.calibration.sources.folders import opened_image
from edgeprune.calibration.sources.pictures import from_pil
from edgeprune.calibration.sources.source import ReadOptions
from edgeprune.sharing import infer
from edgeprune.sharing.model_metadata import preprocessing_text, write_entries

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CARDS = {
    "nothing": Preprocessing(),
    "shorter side and crop": Preprocessing(resize=32, crop=24, **IMAGENET),
    "exact size": Preprocessing(resize=(21, 40), mean=(0.5,), std=(0.25,)),
    "crop alone": Preprocessing(crop=(9, 12)),
    "letterbox": Preprocessing(letterbox=40),
    "flat letterbox, bgr": Preprocessing(letterbox=(17, 33), pad=7, channel_order=ChannelOrder.BGR),
    "as stored, on white": Preprocessing(exif=False, ground=Ground.WHITE, resize=13),
}


def ours(path: Path, card: Preprocessing, channels: int) -> np.ndarray[Any, Any]:
    options = ReadOptions(channels=channels, ground=card.ground, exif=card.exif)
    pixels = opened_image(path, lambda image: from_pil(image, options)).pixels
    return preprocess(pixels, card, channels=channels, where="it").numpy()


def theirs(path: Path, card: Preprocessing, channels: int) -> np.ndarray[Any, Any]:
    steps = json.loads(preprocessing_text(card))
    return infer.preprocess(infer.read_image(str(path), steps, channels), steps, channels)


def assert_same(path: Path, card: Preprocessing, channels: int) -> None:
    expected, found = ours(path, card, channels), theirs(path, card, channels)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A photo on its side, grey, 16 bits, a palette, transparent ones in color and grey."""
    folder = tmp_path_factory.mktemp("pictures")
    side = save_as(folder / "side.jpg", noise(31, 47), orientation=6)
    image = Image.fromarray(noise(45, 26, seed=1))
    image.convert("L").save(folder / "grey.png")
    image.quantize(16).save(folder / "palette.png")
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(noise(45, 26, seed=2)[..., 0]))
    clear.save(folder / "clear.png")
    clear.convert("LA").save(folder / "clear-grey.png")
    deep = np.random.default_rng(3).integers(0, 65536, (25, 19), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    return [side, *sorted(folder.glob("*.png"))]


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())
@pytest.mark.parametrize("channels", [1, 3])
def test_files_become_the_same_input(pictures: list[Path], card: Preprocessing, channels: int) -> None:
    if channels == 1 and card.mean is not None and len(card.mean) == 3:
        card = Preprocessing(resize=card.resize, crop=card.crop, mean=(0.4,), std=(0.3,))
    for path in pictures:
        assert_same(path, card, channels)


sides = st.integers(1, 70)


@settings(max_examples=25)
@given(size=st.tuples(sides, sides), to=st.tuples(sides, sides), whole=st.booleans(), seed=st.integers(0, 99))
def test_resizing_is_that_of_torch_to_the_last_step(
    size: tuple[int, int], to: tuple[int, int], whole: bool, seed: int
) -> None:
    """Without that, a pixel on a half would differ by a whole step of 1/255."""
    pixels = np.ascontiguousarray(noise(*size, seed=seed).transpose(2, 0, 1))
    given_pixels = pixels if whole else pixels.astype(np.float32) / 255
    card = Preprocessing(resize=to)
    expected = preprocess(torch.from_numpy(given_pixels), card, channels=3, where="it").numpy()
    found = infer.preprocess(given_pixels, json.loads(preprocessing_text(card)), 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.realdata
def test_photos_become_the_same_input(research_data: Path, tmp_path: Path) -> None:
    archive = research_data / "imagenet_test_250.zip"
    if not archive.is_file():
        pytest.skip(f"{archive.name} is not among the research data")
    card = Preprocessing(resize=256, crop=224, **IMAGENET)
    with zipfile.ZipFile(archive) as photos:
        names = sorted(n for n in photos.namelist() if n.lower().endswith((".jpg", ".jpeg", ".png")))[:2]
        assert names
        for name in names:
            path = tmp_path / Path(name).name
            Image.open(io.BytesIO(photos.read(name))).convert("RGB").save(path.with_suffix(".png"))
            assert_same(path.with_suffix(".png"), card, 3)


def model_file(path: Path, *, entries: dict[str, str] | None, batch: int | str = "batch") -> Path:
    """Scores of six classes: the means of six columns of a grey image of 8x6, plus a constant."""
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["means"], keepdims=0),
        helper.make_node("Add", ["means", "more"], ["output"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("more", TensorProto.FLOAT, [6], [0, 0, 9, 0, 0, 5]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 1, 8, 6])
    scores = helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 6])
    graph = helper.make_graph(nodes, "columns", [image], [scores], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    if entries is not None:
        write_entries(path, entries)
    return path


STEPS = "edgeprune.preprocessing"
LABELS = ("ape", "bee", "cat", "dog", "elk", "fox")
ENTRIES = {
    STEPS: preprocessing_text(Preprocessing(resize=(8, 6))),
    "edgeprune.outputs": "class scores",
    "edgeprune.labels": json.dumps(LABELS),
}


def with_card(card: Preprocessing) -> dict[str, str]:
    return ENTRIES | {STEPS: preprocessing_text(card)}


def with_steps(**changed: Any) -> dict[str, str]:
    """The entries with other steps; without those that are ``None``."""
    steps = {**json.loads(ENTRIES[STEPS]), **changed}
    kept = {key: value for key, value in steps.items() if key not in changed or value is not None}
    return ENTRIES | {STEPS: json.dumps(kept)}


def test_it_runs_alone_and_prints_the_best_five(tmp_path: Path) -> None:
    """In a process of its own, beside a model.onnx; nothing of edgeprune or torch is imported."""
    model_file(tmp_path / "model.onnx", entries=ENTRIES)
    np.save(tmp_path / "image.npy", noise(20, 10)[..., 0])
    script = tmp_path / "infer.py"
    script.write_bytes(Path(infer.__file__).read_bytes())
    code = (
        "import runpy, sys\n"
        "sys.modules.update(torch=None, edgeprune=None, PIL=None)\n"
        f"sys.argv = [{str(script)!r}, 'image.npy']\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("cat: score 9.")
    assert lines[1].startswith("fox: score 5.")
    assert lines[0].endswith("%")


@pytest.mark.parametrize("changed", [{"edgeprune.labels": '["one"]'}, {"edgeprune.labels": "[]"}])
def test_labels_that_do_not_fit_are_not_used(tmp_path: Path, changed: dict[str, str]) -> None:
    model = model_file(tmp_path / "m.onnx", entries=ENTRIES | changed)
    np.save(tmp_path / "image.npy", noise(8, 6)[..., 0])
    assert infer.run(str(tmp_path / "image.npy"), str(model))[0].startswith("class 2: ")


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([0.1, 0.653, 0.247], "class 1: score 0.6530, 65.3%"),
        ([0.0, 1.0, 0.0], "class 1: score 1.0000, 100.0%"),
        ([0.1, 0.6535, 0.247], "class 1: score 0.6535, 65.4%"),
        ([0.1, 0.753, 0.247], "class 1: score 0.7530, 47.1%"),
        ([-0.1, 0.653, 0.447], "class 1: score 0.6530, 43.8%"),
    ],
)
def test_scores_that_are_shares_already_are_shown_as_they_are(scores: list[float], words: str) -> None:
    """A second softmax would make 65.3% of a network that ends in one 44.6%."""
    assert infer.top_lines(np.array(scores, np.float32), [])[0] == words


def test_other_outputs_are_told_by_shape_and_a_fixed_batch_is_filled(tmp_path: Path) -> None:
    model = model_file(tmp_path / "m.onnx", entries=ENTRIES | {"edgeprune.outputs": "other"}, batch=3)
    np.save(tmp_path / "image.npy", noise(8, 6)[..., 0])
    (line,) = infer.run(str(tmp_path / "image.npy"), str(model))
    assert line.startswith("output: shape 3x6, from 0.")


@pytest.mark.parametrize(
    ("array", "entries", "words"),
    [
        (np.zeros((8, 6), np.int64), ENTRIES, "int64"),
        (np.full((8, 6), np.nan, np.float32), ENTRIES, "finite"),
        (np.zeros((2, 2, 8, 6), np.uint8), ENTRIES, "two or three axes"),
        (np.zeros((8, 6), np.uint8), None, "no entry edgeprune.preprocessing"),
        (np.zeros((8, 6), np.uint8), with_steps(exif=None, ground=None), "lacks exif, ground; give a model"),
        (np.zeros((8, 6), np.uint8), with_steps(resize="eight"), "cannot be applied"),
        (np.zeros((8, 6), np.uint8), ENTRIES | {STEPS: "{"}, "preprocessing of the model is damaged"),
        (np.zeros((8, 6), np.uint8), ENTRIES | {STEPS: "[]"}, "preprocessing of the model is damaged"),
        (np.zeros((8, 6), np.uint8), ENTRIES | {"edgeprune.labels": "3"}, "edgeprune.labels of the model is"),
        (np.zeros((8, 6), np.uint8), with_card(Preprocessing(crop=9)), "smaller than the crop"),
        (np.zeros((9, 9), np.uint8), with_card(Preprocessing()), "does not resize"),
        (np.zeros((8, 6), np.uint8), with_card(Preprocessing(resize=(9**9, 9**9))), "more than"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], array: Any, entries: Any, words: str
) -> None:
    model = model_file(tmp_path / "m.onnx", entries=entries)
    np.save(tmp_path / "image.npy", array)
    assert infer.main([str(tmp_path / "image.npy"), str(model)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert words in said


def test_missing_files_and_pillow_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(model_file(tmp_path / "m.onnx", entries=ENTRIES))
    picture, text = str(save_as(tmp_path / "p.png", noise(8, 6))), tmp_path / "text.png"
    text.write_text("no image")
    for arguments, words in (
        ([str(tmp_path / "none.png"), model], "there is no file"),
        ([picture, str(tmp_path / "none.onnx")], "there is no model"),
        ([picture, picture], "cannot be read by onnxruntime"),
        ([str(text), model], "cannot be read as an image"),
    ):
        assert infer.main(arguments) == 1
        assert words in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert infer.main([picture, model]) == 1
    assert "Pillow is not installed" in capsys.readouterr().err


def npy_bytes(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, one=np.zeros((8, 6), np.uint8))
    return stream.getvalue()


def huge_picture() -> bytes:
    """A PNG of 20000x10000 pixels of one bit: some 25 kB in the file, 200 million pixels."""
    stream = io.BytesIO()
    Image.new("1", (20000, 10000)).save(stream, "PNG")
    return stream.getvalue()


WHOLE_ARRAY = npy_bytes(noise(8, 6)[..., 0])
DAMAGED_ARRAYS = {
    "empty": b"",
    "one byte": b"\x93",
    "no header": WHOLE_ARRAY[:9],
    "half a header": WHOLE_ARRAY[:40],
    "pixels missing": WHOLE_ARRAY[:-5],
    "header of no Python": WHOLE_ARRAY.replace(b"{'descr'", b"{'descr(", 1),
    "header of another key": WHOLE_ARRAY.replace(b"'shape'", b"'shame'", 1),
    "more than memory": WHOLE_ARRAY.replace(b"(8, 6)", b"(%d, 6)" % 10**15, 1),
    "several arrays": archive_bytes(),
    "half an archive": archive_bytes()[:60],
    "pickled": npy_bytes(np.array([None, 1], dtype=object)),
    "text": b"no array",
}


@pytest.mark.parametrize("content", DAMAGED_ARRAYS.values(), ids=DAMAGED_ARRAYS.keys())
def test_damaged_arrays_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    model = model_file(tmp_path / "m.onnx", entries=ENTRIES)
    (tmp_path / "a.npy").write_bytes(content)
    assert_one_sentence(capsys, tmp_path / "a.npy", model)


def assert_one_sentence(capsys: pytest.CaptureFixture[str], image: Path, model: Path) -> None:
    assert infer.main([str(image), str(model)]) == 1
    out, said = capsys.readouterr()
    assert not out
    assert said.startswith("error: ")
    assert image.name in said
    assert said.count("\n") == 1


def saved_bytes(name: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(40, 30)).save(stream, name)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.5])
def test_pictures_cut_off_are_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    name: str,
    share: float,
) -> None:
    model, content = model_file(tmp_path / "m.onnx", entries=ENTRIES), saved_bytes(name)
    (tmp_path / "p.img").write_bytes(content[: int(share * len(content))])
    assert_one_sentence(capsys, tmp_path / "p.img", model)
    assert not recwarn.list  # they would be lines on stderr


@pytest.mark.parametrize("error", [SyntaxError("broken PNG file"), struct.error("short"), IndexError()])
def test_what_decoders_raise_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """None of these is an OSError, and a decoder may say nothing at all."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(infer, "from_pillow", fail)
    model = model_file(tmp_path / "m.onnx", entries=ENTRIES)
    assert_one_sentence(capsys, save_as(tmp_path / "p.png", noise(8, 6)), model)


def test_a_picture_beyond_pillows_limit_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "huge.png").write_bytes(huge_picture())
    assert_one_sentence(capsys, tmp_path / "huge.png", model_file(tmp_path / "m.onnx", entries=ENTRIES))


def test_an_input_that_the_model_does_not_take_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime's errors are neither ValueErrors nor RuntimeErrors."""
    model = model_file(tmp_path / "m.onnx", entries=ENTRIES)
    changed = onnx.load(model)
    changed.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    changed.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    changed.graph.initializer[1].CopyFrom(helper.make_tensor("more", TensorProto.DOUBLE, [6], [0.0] * 6))
    onnx.save(changed, model)
    np.save(tmp_path / "a.npy", noise(8, 6)[..., 0])
    assert_one_sentence(capsys, tmp_path / "a.npy", model)
