"""Emulated Arm cores: same outputs, and instructions by class, of artefacts in 32 and 8 bits.

Run as ``python tests/benchmarks/bench_emulation.py --results FOLDER``; goes on where it stopped and writes
``docs/benchmarks/latency-emulated.md``. Skipped with its reason where qemu or a C compiler is missing.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from common import Jobs, NotMeasuredError, Part, research_data, run_parts
from torch import nn

import edgeprune
from edgeprune import parity
from edgeprune.artifacts.latency import InstructionCounts
from edgeprune.artifacts.quantization import IntegerFormat, RangeMethod
from edgeprune.devices.emulation.cores import CORES
from edgeprune.devices.emulation.counting import COMPILER
from edgeprune.devices.emulation.running import QEMU, emulated_instructions, emulated_outputs
from edgeprune.errors import DeviceError
from edgeprune.options.cards import load_card
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.settings import IntegerSettings

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
CHOSEN = ("cortex-a53", "cortex-a72", "cortex-a76")
FORMS = {"32 bits": None, "8 bits, unsigned": False, "8 bits, signed": True}
"""Activations of each."""
WIDTHS = (16, 17, 18, 19, 20, 21, 24, 25, 28, 32, 33, 40, 48)
IMAGES = 8
_FITTED = 256


def lacks() -> str | None:
    """Why nothing can be measured here."""
    for name, package in ((QEMU, "qemu-user"), (COMPILER, "gcc")):
        if shutil.which(name) is None:
            return f"{name} is missing (Debian, Ubuntu: apt install {package})"
    return None


@cache
def _images() -> tuple[torch.Tensor, torch.Tensor]:
    """Preprocessed images to fit with, and others."""
    card = load_card("cifar10")
    mean, std = (np.array(each, dtype=np.float32) for each in (card.mean, card.std))
    with np.load(research_data() / "cifar10_train_10k.npz") as train:
        images = (train["images"][: _FITTED + IMAGES].astype(np.float32) / 255 - mean) / std
    found = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return found[:_FITTED], found[_FITTED:]


def _compressed(folder: Path) -> Path:
    """ResNet-20 with half of its MACs, widths for rpi4, in 32 bits; made once."""
    out = folder / "resnet20"
    if not out.exists():
        data, calibration = research_data(), folder / "unlabelled.npz"
        with np.load(data / "cifar10_train_10k.npz") as train:
            np.savez(calibration, images=train["images"][:_FITTED])
        edgeprune.compress(
            data / "resnet20_cifar10.safetensors", arch=f"{HERE / 'resnet20.py'}:resnet20",
            calibration=calibration, preprocessing=load_card("cifar10"), ratio=0.5, target="rpi4",
            effort=edgeprune.Effort.QUICK, pictures=False, threads=1, output=out,
        )  # fmt: skip
    return out / "model.onnx"


def _as(form: str, source: Path, images: torch.Tensor, folder: Path) -> Path:
    """The file in a form of ``FORMS``."""
    signed = FORMS[form]
    if signed is None:
        return source
    made = folder / f"signed-{signed}.onnx"
    chosen = IntegerFormat(signed_activations=signed, reduce_range=False, reason="measured here")
    quantize_integers(source, made, images, IntegerSettings(form=chosen, method=RangeMethod.MINMAX))
    return made


def artefact(folder: Path, form: str, core: str, work: Path) -> Row:
    """Outputs here and on the core, and its instructions, counted twice."""
    fitting, others = _images()
    path = _as(form, _compressed(folder), fitting, work)
    name = onnx.load(path).graph.input[0].name
    try:
        told = emulated_outputs(path, name, others, CORES[core])
        counts = [emulated_instructions(path, name, others[:1], CORES[core]) for _ in range(2)]
    except DeviceError as error:
        raise NotMeasuredError(str(error)) from error
    here = parity.run_onnx(path, others, threads=1)
    found = parity.deviation(here, told, names=("here", core))
    return {
        "form": form,
        "core": core,
        "relative_error": found.relative_error,
        "same_answers": float(np.mean(here[0].argmax(1) == told[0].argmax(1))),
        "counts": asdict(counts[0]),
        "again": counts[1].total / counts[0].total - 1.0,
    }


def width(form: str, core: str, channels: int, work: Path) -> Row:
    """Instructions of a convolution of 3 x 3 with so many channels out, from 32 at 14 x 14."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(32, channels, 3, padding=1), nn.ReLU()).eval()
    image = torch.randn(1, 32, 14, 14)
    source = work / "convolution.onnx"
    torch.onnx.export(network, (image,), str(source), dynamo=True, verbose=False)
    path = _as(form, source, torch.randn(16, 32, 14, 14), work)
    try:
        counts = emulated_instructions(path, onnx.load(path).graph.input[0].name, image, CORES[core])
    except DeviceError as error:
        raise NotMeasuredError(str(error)) from error
    return {"form": form, "core": core, "channels": channels, "counts": asdict(counts)}


def _jobs(folder: Path, _seeds: int, _threads: int) -> Jobs:
    found: Jobs = {}
    for core in CHOSEN:
        for form in FORMS:
            found[f"resnet20 {form} {core}"] = partial(artefact, folder, form, core)
    for core in ("cortex-a72", "cortex-a76"):
        for form in FORMS:
            for channels in WIDTHS:
                found[f"width {form} {core} {channels}"] = partial(width, form, core, channels)
    return found


def _render(rows: list[Row]) -> str:
    text = (
        "ResNet-20 with half of its MACs, onnxruntime for aarch64 under qemu-user, one thread: outputs of "
        f"{IMAGES} images on\neach core against those of this machine, and instructions that a run retires "
        "beyond the first, by class (counted by\nour plugin of qemu). *again*: the total of a second count "
        "over the first. Counts are no times: a core may retire two of\none class and half of another in a "
        "cycle.\n\n"
    )
    names = InstructionCounts.names()
    titles = [name.replace("_", " ") for name in names]
    text += _line(["core", "form", "largest error", "same answers", "instructions", *titles, "again"])
    text += _line(["---"] * (6 + len(names)))
    for row in (r for r in rows if "relative_error" in r):
        total = sum(row["counts"].values())
        shares = [f"{row['counts'][name] / total:.1%}" for name in names]
        text += _line(
            [row["core"], row["form"], f"{row['relative_error']:.1e}", f"{row['same_answers']:.0%}",
             f"{total / 1e6:.2f} M", *shares, f"{row['again']:+.3%}"]
        )  # fmt: skip
    return text + _widths([r for r in rows if "channels" in r])


def _widths(rows: list[Row]) -> str:
    """What a channel more costs, by core and form."""
    if not rows:
        return ""
    text = (
        "\n## Width quantum\n\nA 3 x 3 convolution of 32 channels at 14 x 14, by channels out: thousands of "
        "multiplying instructions (of the\nfirst three classes). Where a channel more costs nothing, the "
        "kernel computes it anyway.\n\n"
    )
    text += _line(["core", "form", *map(str, WIDTHS)]) + _line(["---"] * (2 + len(WIDTHS)))
    for core, form in dict.fromkeys((r["core"], r["form"]) for r in rows):
        own = {r["channels"]: r["counts"] for r in rows if (r["core"], r["form"]) == (core, form)}
        told = [f"{_multiplying(own[w]) / 1e3:.0f}" if w in own else "" for w in WIDTHS]
        text += _line([core, form, *told])
    return text


def _multiplying(counts: dict[str, int]) -> int:
    return counts["float_multiply_add"] + counts["dot_product"] + counts["widening_multiply"]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Read the options of this benchmark, and run."""
    part = Part(title="Emulated Arm cores", jobs=_jobs, render=_render, lacks=lacks, page="latency-emulated")
    run_parts("emulation", __doc__, {"emulated": part}, threads=1)


if __name__ == "__main__":
    main()
