"""``edgeprune quantize`` as a user runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx_models import branches, written
from onnxruntime.transformers.float16 import convert_float_to_float16
from small_project import DIGITS_DATA, DIGITS_MODEL, digits_network, sentence

from edgeprune.system.data import data_dir


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(digits_network(), tmp_path_factory.mktemp("digits") / "digits.onnx", (1, 8, 8))


@pytest.fixture
def folder(digits: Path, tmp_path: Path) -> Path:
    shutil.copy(digits, tmp_path / "digits.onnx")
    return tmp_path


def test_eight_bits(edgeprune: Any, folder: Path) -> None:
    asked = ("quantize", "digits.onnx", "--calibration", DIGITS_DATA, "--threads", "1", "--seed", "3")
    done = edgeprune(*asked, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    path = folder / "digits-int8.onnx"
    assert found["size_bytes"] == path.stat().st_size < 0.4 * found["source_size_bytes"]
    assert found["accuracy_kind"] == "top-1 accuracy"
    before, after = found["accuracy"]
    assert after["value"] >= before["value"] - 0.03
    assert found["deviation"]["top1_agreement"] >= 0.97
    assert found["deviation"]["cosine"] > 0.998
    assert found["details"]["nodes"]["Conv"] == 6
    assert found["details"]["images"] == 300
    types = {i.data_type for i in onnx.load(str(path)).graph.initializer if i.name.endswith("_quantized")}
    assert onnx.TensorProto.INT8 in types
    first = path.read_bytes()
    again = edgeprune(*asked, "--overwrite", "--html", "page.html", cwd=folder)
    assert again.returncode == 0
    assert "in 8 bits:" in (folder / "page.html").read_text().lower()
    assert "page.html" in again.stderr
    assert path.read_bytes() == first
    for words in ("in 8 bits:", "6 Conv", "ranges by mse over 300 images", "CPU time, measured on this host"):
        assert words in again.stdout


@pytest.mark.parametrize("command", ["quantize", "profile"])
def test_a_page_that_cannot_be_written_is_refused_before_work(
    edgeprune: Any, folder: Path, command: str
) -> None:
    data = ("--calibration", DIGITS_DATA) if command == "quantize" else ()
    for path, words in (("none/page.html", "is no folder"), (".", "is a folder; name a file")):
        done = edgeprune(command, "digits.onnx", *data, "--html", path, cwd=folder)
        assert words in sentence(done, 7)
    assert [each.name for each in folder.glob("*.*")] == ["digits.onnx"]


def test_sixteen_bits_keep_the_function_and_halve_the_file(edgeprune: Any, folder: Path) -> None:
    done = edgeprune(
        "quantize", "digits.onnx", "--calibration", DIGITS_DATA, "--precision", "fp16", "-o", "half.onnx",
        "--threads", "1", "--json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["size_bytes"] < 0.6 * found["source_size_bytes"]
    assert any("only the file is smaller" in note for note in found["notes"])
    images = np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"]).run(
            None, {"input": images}
        )[0]
        for name in ("digits.onnx", "half.onnx")
    )
    assert 0 < np.abs(before - after).max() < 5e-3 * np.abs(before).max()


def test_auto_says_of_each_piece_what_it_is_and_why(edgeprune: Any, folder: Path) -> None:
    done = edgeprune(
        "quantize", "digits.onnx", "--calibration", DIGITS_DATA, "--precision", "auto", "--max-drop", "3",
        "--threads", "1", "--json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    pieces = found["details"]["pieces"]
    assert sum(piece["weighted_nodes"] for piece in pieces) == 7
    assert all(piece["alone"] > 0 and "of the 32-bit network's time" in piece["why"] for piece in pieces)
    assert found["size_bytes"] <= found["source_size_bytes"]
    assert found["accuracy"][1]["value"] >= found["accuracy"][0]["value"] - 0.03
    named = edgeprune(
        "quantize", "digits.onnx", "--calibration", DIGITS_DATA, "--precision", "auto", "--keep-float", "x",
        "-o", "other.onnx", cwd=folder,
    )  # fmt: skip
    assert "--keep-float x was given" in sentence(named, 2)


def test_constants_beyond_16_bits_stay_and_are_named(edgeprune: Any, folder: Path) -> None:
    network = digits_network()
    layer = next(m for m in network.modules() if isinstance(m, torch.nn.Linear))
    with torch.no_grad():
        layer.weight[0, 0] = 1e5
    written(network, folder / "large.onnx", (1, 8, 8))
    done = edgeprune(
        "quantize", "large.onnx", "--calibration", DIGITS_DATA, "--precision", "fp16", "--threads", "1",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "beyond the range of 16 bits" in done.stdout


def changed(source: Path, made: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """The file with its first weight of four dimensions changed."""
    model = onnx.load(str(source))
    weight = next(each for each in model.graph.initializer if len(each.dims) == 4)
    weight.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(weight)), weight.name))
    onnx.save(model, str(made))


@pytest.mark.parametrize("precision", ["int8", "auto", "fp16"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_outputs_that_are_no_numbers_are_refused(
    edgeprune: Any, folder: Path, precision: str, value: str
) -> None:
    def spoil(weight: np.ndarray) -> np.ndarray:
        spoiled = weight.copy()
        spoiled.flat[:] = np.float32(value)
        return spoiled

    changed(folder / "digits.onnx", folder / "spoiled.onnx", spoil)
    asked = ("quantize", "spoiled.onnx", "--calibration", DIGITS_DATA, "--precision", precision)
    done = edgeprune(*asked, "-o", "made.onnx", cwd=folder)
    assert "NaN or infinite values" in sentence(done, 13)
    assert not (folder / "made.onnx").exists()


@pytest.mark.parametrize("precision", ["int8", "auto", "fp16"])
def test_a_file_that_calculates_in_16_bits_is_refused_in_these_words(
    edgeprune: Any, folder: Path, precision: str
) -> None:
    model = convert_float_to_float16(onnx.load(str(folder / "digits.onnx")), keep_io_types=True)
    onnx.save(model, str(folder / "half.onnx"))
    asked = ("quantize", "half.onnx", "--calibration", DIGITS_DATA, "--precision", precision)
    said = sentence(edgeprune(*asked, "-o", "made.onnx", cwd=folder), 13)
    assert "half.onnx has its weights in 16 bits" in said
    assert "give the 32-bit file" in said


def test_a_file_stored_in_16_bits(edgeprune: Any, folder: Path) -> None:
    """Once more it is refused; in 8 bits it is quantized as the file that it was made from."""
    asked = ("--calibration", DIGITS_DATA, "--threads", "1", "-q")
    made = edgeprune("quantize", "digits.onnx", "--precision", "fp16", "-o", "half.onnx", *asked, cwd=folder)
    assert made.returncode == 0, made.stderr
    again = edgeprune("quantize", "half.onnx", "--precision", "fp16", "-o", "more.onnx", *asked, cwd=folder)
    assert "has its weights in 16 bits already" in sentence(again, 13)
    assert not (folder / "more.onnx").exists()
    assert edgeprune("quantize", "half.onnx", *asked, cwd=folder).returncode == 0


def test_constants_that_are_in_16_bits_already_are_counted(edgeprune: Any, folder: Path) -> None:
    model = onnx.load(str(folder / "digits.onnx"))
    weight = next(each for each in model.graph.initializer if len(each.dims) == 2)
    half = onnx.numpy_helper.to_array(weight).astype(np.float16)
    name = weight.name
    weight.CopyFrom(onnx.numpy_helper.from_array(half, "in_half"))
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["in_half"], [name], to=onnx.TensorProto.FLOAT))
    onnx.save(model, str(folder / "partly.onnx"))
    asked = ("--calibration", DIGITS_DATA, "--threads", "1", "--precision", "fp16")
    done = edgeprune("quantize", "partly.onnx", *asked, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "1 constant of partly.onnx in 16 bits already" in " ".join(done.stdout.split())


def test_a_file_that_grows_says_so(edgeprune: Any, tmp_path: Path) -> None:
    pooled = (torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), *pooled, torch.nn.Linear(4, 10))
    written(network.eval(), tmp_path / "small.onnx", (1, 8, 8))
    done = edgeprune("quantize", "small.onnx", "--calibration", DIGITS_DATA, "--threads", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    grown = (tmp_path / "small-int8.onnx").stat().st_size > (tmp_path / "small.onnx").stat().st_size
    assert grown
    assert "the file has become larger" in words


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_an_output_without_a_batch_is_named(edgeprune: Any, folder: Path, precision: str) -> None:
    model = onnx.load(str(folder / "digits.onnx"))
    name = model.graph.output[0].name
    model.graph.node.append(onnx.helper.make_node("ReduceMean", [name], ["mean_of_all"], keepdims=0))
    model.graph.output.append(onnx.helper.make_tensor_value_info("mean_of_all", onnx.TensorProto.FLOAT, []))
    onnx.save(model, str(folder / "mean.onnx"))
    asked = ("quantize", "mean.onnx", "--calibration", DIGITS_DATA, "--precision", precision)
    said = sentence(edgeprune(*asked, cwd=folder), 13)
    assert "output 'mean_of_all' of mean.onnx has no batch dimension" in said


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("digits.onnx", "-o", "digits.onnx"), 7, "is the file to be quantized; name another one"),
        (
            ("digits.onnx", "-o", "taken.onnx"),
            7,
            "'taken.onnx' exists; name another file, or add --overwrite",
        ),
        (("digits.onnx", "-o", "q.txt"), 7, "'q.txt' is no .onnx file"),
        (("digits.onnx", "-o", "no/q.onnx"), 7, "there is no folder"),
        (("missing.onnx",), 13, "no ONNX file at 'missing.onnx'"),
        (("digits.onnx", "--keep-float", "nobody"), 2, "--keep-float nobody was given"),
        (("digits.onnx", "--max-drop", "-1"), 2, "--max-drop -1 was given"),
        (("digits.onnx", "--precision", "fp32"), 2, "accepted are int8, auto and fp16"),
        (("digits.onnx", "--target", "rpi9"), 9, "unknown target 'rpi9'"),
    ],
)
def test_what_is_refused(
    edgeprune: Any, folder: Path, options: tuple[str, ...], status: int, said: str
) -> None:
    (folder / "taken.onnx").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in folder.glob("*.onnx")}
    done = edgeprune("quantize", *options, "--calibration", DIGITS_DATA, cwd=folder)
    assert said in sentence(done, status)
    assert {path: path.read_bytes() for path in folder.glob("*.onnx")} == before


def test_more_loss_than_allowed_writes_nothing(edgeprune: Any, folder: Path) -> None:
    network = digits_network()
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    with torch.no_grad():
        layers[-1].bias += 1e4  # scores that 8 bits cannot tell apart any more
    written(network, folder / "coarse.onnx", (1, 8, 8))
    asked = ("quantize", "coarse.onnx", "--calibration", DIGITS_DATA, "--threads", "1", "-q")
    done = edgeprune(*asked, "--max-drop", "1", cwd=folder)
    assert "points of top-1 accuracy on the images kept back where 1 were allowed" in sentence(done, 12)
    assert not (folder / "coarse-int8.onnx").exists()


@pytest.mark.wide
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_compress_delivers_fewer_bits_and_keeps_the_32_bit_file(
    edgeprune: Any, tmp_path: Path, precision: str
) -> None:
    done = edgeprune(
        "compress", *DIGITS_MODEL, "--calibration", DIGITS_DATA, "--target", "rpi4", "--precision", precision,
        "--ratio", "0.25", "--max-images", "120", "--threads", "1", "-o", str(tmp_path / "out"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    delivered, exact = tmp_path / "out" / "model.onnx", tmp_path / "out" / "model-fp32.onnx"
    section = report["quantization"]
    assert section["precision"] == precision
    assert (section["integer"] is None, section["float16"] is None) == (
        precision == "fp16",
        precision == "int8",
    )
    assert section["float_size_bytes"] == exact.stat().st_size > 1.8 * delivered.stat().st_size
    assert report["deployment"]["compressed"]["size_bytes"] == delivered.stat().st_size
    assert [f["stage"] for f in report["accuracy"]] == ["original", "pruned", "recovered", "ONNX", precision]
    assert report["accuracy"][-1]["value"] >= report["accuracy"][-2]["value"] - 0.05
    predicted = report["deployment"]["compressed_prediction"]
    assert predicted["provenance"] == "predicted"
    assert predicted["low_ms"] <= predicted["latency_ms"] <= predicted["high_ms"]
    figures = report["deployment"]["compressed"]
    assert figures["macs"] < 0.8 * report["deployment"]["original"]["macs"]
    assert figures["parameters"] > 40_000
    assert f"Quantization: {precision}" in (tmp_path / "out" / "report.md").read_text()


def test_activations_of_every_kind_are_in_8_bits_or_stay_in_32_with_their_reason(
    edgeprune: Any, tmp_path: Path
) -> None:
    """Constant, nearly constant, denormal, tiny, whole, huge ones beside usual ones; then infinite ones."""
    sizes = {"constant": 0.0, "near": 1e-8, "denormal": 1e-41, "tiny": 1e-25, "whole": 9.0, "huge": 3e37}
    np.savez(
        tmp_path / "noise.npz", images=np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
    )
    branches(tmp_path / "every.onnx", sizes, rounds="whole", biases={"constant": 2.5, "near": 1.0})
    asked = ("--calibration", "noise.npz", "--mean", "0", "--std", "1", "--threads", "1")
    done = edgeprune("quantize", "every.onnx", *asked, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["deviation"]["relative_error"] < 0.05
    unscaled = found["details"]["unscaled"]
    assert {name.split(".")[0] for name in unscaled} == {"denormal", "huge"}
    assert all(reason in "".join(found["notes"]) for reason in unscaled.values())
    assert found["details"]["nodes"]["Conv"] >= 9

    branches(tmp_path / "infinite.onnx", {"infinite": 1e38})
    ended = edgeprune("quantize", "infinite.onnx", *asked, cwd=tmp_path)
    assert "has NaN or infinite values on the calibration images" in sentence(ended, 13)
    assert not (tmp_path / "infinite-int8.onnx").exists()


BUDGETED = (
    "compress", *DIGITS_MODEL, "--calibration", DIGITS_DATA, "--target", "rpi4", "--max-images", "120",
    "--threads", "1", "--effort", "quick",
)  # fmt: skip


@pytest.mark.wide
def test_a_budget_holds_on_the_file_in_fewer_bits(edgeprune: Any, tmp_path: Path) -> None:
    """What fits in 8 bits is not pruned; what does not is cut just so far that it does."""
    whole = json_of(edgeprune(*BUDGETED, "--precision", "int8", "--max-size", "150kB", "--json",
                              "-o", str(tmp_path / "whole")))  # fmt: skip
    assert whole["pruning"]["macs_removed_share"] == 0.0
    in_integers = whole["deployment"]["compressed"]["size_bytes"]
    assert in_integers < 0.4 * whole["deployment"]["original"]["size_bytes"]

    limit = round(0.8 * in_integers)
    report = json_of(edgeprune(*BUDGETED, "--precision", "int8", "--max-size", f"{limit / 1e3}kB",
                               "--max-drop", "40", "--json", "-o", str(tmp_path / "out")))  # fmt: skip
    search, out = report["budget"], tmp_path / "out"
    chosen = next(c for c in search["candidates"] if c["name"] == search["chosen"])
    assert 0.85 * limit < chosen["size_bytes"] <= limit
    assert report["deployment"]["compressed"]["size_bytes"] == chosen["size_bytes"]
    place = out / "candidates" / chosen["name"].replace(" ", "-")
    assert (place / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()
    assert (place / "model-fp32.onnx").stat().st_size == report["quantization"]["float_size_bytes"]
    quality = {figure["stage"]: figure["value"] for figure in report["accuracy"]}
    assert chosen["drop_points"] == pytest.approx(100 * (quality["original"] - quality["int8"]))
    assert not any("predicted for their 32-bit form" in note for note in report["notes"])
    assert report["deployment"]["compressed_prediction"]["basis"].startswith(
        "roofline of Raspberry Pi 4 Model B, 8 bits"
    )
    assert any("weights rounded to 8 bits" in note for note in report["notes"])

    picked = edgeprune("pick", str(out), "--max-drop", "40", "-o", str(tmp_path / "picked"))
    assert picked.returncode == 0, picked.stderr
    assert (tmp_path / "picked" / "model-fp32.onnx").exists()


def test_latency_in_eight_bits_is_not_limited_where_it_is_not_known(edgeprune: Any, tmp_path: Path) -> None:
    text = (data_dir("targets") / "rpi4.toml").read_text(encoding="utf-8")
    start, end = text.index("[roofline.int8]"), text.index("[sources]")
    own = tmp_path / "own.toml"
    own.write_text((text[:start] + text[end:]).replace('name = "rpi4"', 'name = "own"', 1), encoding="utf-8")
    done = edgeprune(
        *BUDGETED,
        "--precision",
        "int8",
        "--max-latency",
        "1ms",
        "--target",
        str(own),
        "-o",
        str(tmp_path / "out"),
    )
    assert f"--target {own}, whose latency in 8 bits is not known here" in sentence(done, 2)


def json_of(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("highest", [10, 99])
def test_labels_beyond_the_classes_are_refused_as_compress_does(
    edgeprune: Any, folder: Path, highest: int
) -> None:
    data = np.load(DIGITS_DATA)
    labels = data["labels"].copy()
    labels[0] = highest
    np.savez(folder / "data.npz", images=data["images"], labels=labels)
    done = edgeprune("quantize", "digits.onnx", "--calibration", "data.npz", cwd=folder)
    assert f"have a label {highest}, but the model has 10 classes" in sentence(done, 4)
    assert not (folder / "digits-int8.onnx").exists()


def test_an_original_that_is_no_good_is_told_and_its_loss_is_not_limited(
    edgeprune: Any, folder: Path
) -> None:
    data = dict(np.load(DIGITS_DATA))
    data["labels"] = np.where(np.isin(data["labels"], (0, 6, 8)), 1, data["labels"])  # it answers 0, 6 or 8
    np.savez(folder / "wrong.npz", **data)
    asked = ("quantize", "digits.onnx", "--calibration", "wrong.npz", "--threads", "1")
    done = edgeprune(*asked, cwd=folder)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "WARNING: cannot be judged: the original itself is right on only" in shown
    found = json.loads(edgeprune(*asked, "--overwrite", "--json", cwd=folder).stdout)
    assert "no more than by guessing among 10 classes" in found["cannot_be_judged"]
    refused = edgeprune(*asked, "--overwrite", "--max-drop", "1", cwd=folder)
    assert "--max-drop was given, and the original itself is right on only" in sentence(refused, 4)
