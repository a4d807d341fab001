"""Networks whose weights come with a package: nudenet's detector and the text reader of rapidocr.

The packages are only looked into: ``pip install --no-deps --target FOLDER nudenet rapidocr-onnxruntime
facenet-pytorch`` and ``PYTHONPATH=FOLDER``. Each is judged by what it is used for, against itself as shipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import Jobs, NotMeasuredError, research_data
from imagenet_data import FITTING, TEST
from numpy.typing import NDArray
from PIL import Image
from shipped_answers import Detections, f1_of, suppressed
from shipped_text import LINE, SCENE, similarity, text_lines, text_scenes

Row = dict[str, Any]
NUDENET, OCR = "nudenet", "rapidocr_onnxruntime"
SIDE, FITTED, JUDGED = 320, 250, 40
CONFIDENCE = 0.25
TIMEOUT_S = 3600


def jobs(_folder: Path, _seeds: int, threads: int) -> Jobs:
    """One job a way of making a network smaller."""
    found: Jobs = {f"rapidocr {kind}": lambda work, k=kind: text_reader(k, work, threads) for kind in READERS}
    ways = ("int8", "auto", "compressed", "distilled")
    return found | {f"nudenet {way}": lambda work, w=way: nudenet(w, work, threads) for way in ways}


def file_of(package: str, name: str) -> Path:
    """A file inside a package, which is not imported.

    Raises:
        NotMeasuredError: there is no such package.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise NotMeasuredError(f"the package {package} is not there")
    return Path(next(iter(spec.submodule_search_locations))) / name


def command(*arguments: str, threads: int) -> tuple[Row, str]:
    """Seconds and standard output of an edgeprune command.

    Raises:
        RuntimeError: it ended with another status than 0.
    """
    began = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "edgeprune", *arguments, "--threads", str(threads)],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if run.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: status {run.returncode}: {run.stderr.strip()[-600:]}")
    return {"seconds": time.perf_counter() - began}, run.stdout


def nudenet(way: str, work: Path, threads: int) -> Row:
    """The detector in 8 bits or cut by a quarter: detections from .25 on in 40 images that have any."""
    source = file_of(NUDENET, "320n.onnx")
    images = work / "images"
    _extract(FITTING, images, FITTED)
    common = (
        *("--calibration", str(images), "--resize", f"{SIDE}x{SIDE}", "--mean", "0", "--std", "1"),
        *("--input-shape", f"3x{SIDE}x{SIDE}", "--task", "detection"),
    )
    if way in ("int8", "auto"):
        made = work / "made.onnx"
        row, said = command(
            "quantize", str(source), *common, "--precision", way,
            "-o", str(made), "--json", threads=threads,
        )  # fmt: skip
        row["latency"] = json.loads(said)["latency_ratio"]
    else:
        training = ("--finetune", "10min") if way == "distilled" else ()
        row, said = command(
            "compress", str(source), *common, "--ratio", "0.25",
            *training, "-o", str(work / "out"), "--json", threads=threads,
        )  # fmt: skip
        made = work / "out" / "model.onnx"
        row["macs_removed"] = json.loads(said)["pruning"]["macs_removed_share"]
    pixels = _test_images()
    before = detections(source, pixels)
    chosen = [place for place, found in enumerate(before) if len(found.scores)][:JUDGED]
    after = detections(made, pixels[chosen])
    row |= f1_of([before[place] for place in chosen], after)
    size = made.stat().st_size / source.stat().st_size
    return {"name": f"nudenet {way}", **row, "images": len(chosen), "size": size}


def detections(path: Path, pixels: NDArray[np.float32]) -> list[Detections]:
    """Boxes of every image behind suppression, from .25 on."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = np.concatenate([session.run(None, {name: image[None]})[0] for image in pixels])
    return [suppressed(output.T, confidence=CONFIDENCE) for output in outputs]


def _extract(archive: str, folder: Path, count: int) -> None:
    with zipfile.ZipFile(research_data() / archive) as held:
        held.extractall(folder, members=sorted(held.namelist())[:count])


def pictures(archive: str) -> Iterator[Image.Image]:
    """The photographs of an archive, by name."""
    with zipfile.ZipFile(research_data() / archive) as held:
        for name in sorted(held.namelist()):
            with held.open(name) as stream, Image.open(stream) as image:
                yield image.convert("RGB")


def _test_images() -> NDArray[np.float32]:
    resized = (p.resize((SIDE, SIDE), Image.Resampling.BILINEAR) for p in pictures(TEST))
    return np.stack([np.asarray(p, np.float32).transpose(2, 0, 1) / 255 for p in resized])


READERS = {
    "det": ("ch_PP-OCRv4_det_infer.onnx", SCENE, "0.485,0.456,0.406", "0.229,0.224,0.225"),
    "cls": ("ch_ppocr_mobile_v2.0_cls_infer.onnx", (48, 192), "0.5", "0.5"),
    "rec": ("ch_PP-OCRv4_rec_infer.onnx", LINE, "0.5", "0.5"),
}


def text_reader(kind: str, work: Path, threads: int) -> Row:
    """One of the three networks in 8 bits: boxes, angles or characters of rendered text, against itself."""
    name, (height, width), mean, std = READERS[kind]
    source, made = file_of(OCR, f"models/{name}"), work / "made.onnx"
    draw = (
        text_scenes
        if kind == "det"
        else lambda count, seed: text_lines(count, seed, (height, width), turned=kind == "cls")
    )
    images = work / "images"
    images.mkdir()
    for number, picture in enumerate(draw(150, 0)):
        picture.save(images / f"{number:03}.png")
    row, said = command(
        "quantize", str(source), "--input-shape", f"3x{height}x{width}", "--calibration", str(images),
        "--mean", mean, "--std", std, "-o", str(made), "--json", threads=threads,
    )  # fmt: skip
    judged = np.stack([_normalised(picture, mean, std) for picture in draw(60, 1)])
    before, after = (_outputs(path, judged) for path in (source, made))
    return {
        "name": f"rapidocr {kind}",
        **row,
        "latency": json.loads(said)["latency_ratio"],
        "agreement": similarity(kind, before, after),
        "images": len(judged),
        "size": made.stat().st_size / source.stat().st_size,
    }


def _normalised(picture: Image.Image, mean: str, std: str) -> NDArray[np.float32]:
    means, stds = (
        np.array([float(v) for v in text.split(",")], np.float32).reshape(-1, 1, 1) for text in (mean, std)
    )
    pixels = np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1) / 255
    return np.asarray((pixels - means) / stds, np.float32)


def _outputs(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def render(rows: list[Row]) -> str:
    """One line a job."""
    text = (
        f"*nudenet*: {FITTED} photographs at {SIDE} pixels to fit with; judged by its detections from "
        f"confidence {CONFIDENCE} on in {JUDGED}\nother photographs in which it sees any, against those of "
        "the file as shipped (F1, IoU .5, same class). *rapidocr*: 150\nrendered pictures of text to fit "
        "with, 60 others to judge: boxes of text (F1), angles, characters, against the file\nas shipped. "
        "*time* is the CPU-time ratio measured on this host by `quantize`.\n\n"
        "| network | MACs removed | judged by | agreement | size | time | s |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        latency = row.get("latency") or {}
        interval = f"{latency['ratio']:.2f} [{latency['low']:.2f}, {latency['high']:.2f}]" if latency else ""
        judged = f"{row['objects']} detections" if "objects" in row else f"{row['images']} pictures"
        share = f"{row['macs_removed']:.1%}" if "macs_removed" in row else ""
        text += (
            f"| {row['name']} | {share} | {judged} | {row['agreement']:.3f} | {row['size']:.2f} | {interval} "
            f"| {row['seconds']:.0f} |\n"
        )
    return text
