"""ResNet-20 in 8 bits on the whole test set: whole, pruned, and with badly scaled channels."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from resnet20 import ResNet20
from trained_network import TrainedNetwork

import edgeprune
from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.choices import HOST
from edgeprune.artifacts.quantization import Precision
from edgeprune.capture.export import export_program
from edgeprune.exporting import export_onnx, simplify_onnx
from edgeprune.options.cards import load_card
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.targets import load_target

Row = dict[str, Any]

SMALL = "pruned 25%, 22% of the size"
CASES = ("whole", "pruned 25%", SMALL, "badly scaled")
SIZE_SHARE = 0.22
SPREAD = 2.5
"""Standard deviation of the logarithm of the factors of badly scaled channels."""


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Images one batch at a time."""

    def __init__(self, images: torch.Tensor, name: str, batch: int = 50) -> None:
        self._batches = iter([{name: b.numpy()} for b in torch.split(images, batch)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch."""
        return next(self._batches, None)


def plain(source: Path, destination: Path, images: torch.Tensor, name: str = "input") -> None:
    """onnxruntime's static quantization as its documentation advises for x86: U8S8, a scale per channel."""
    prepared = destination.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantize_static(
        str(prepared), str(destination), Reader(images, name),
        quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def by_nncf(source: Path, destination: Path, images: torch.Tensor, name: str = "input") -> None:
    """NNCF's post-training quantization of ONNX models, with its defaults."""
    import nncf

    data = nncf.Dataset([{name: image[None].numpy()} for image in images])
    found = nncf.quantize(onnx.load(str(source)), data, subset_size=len(images))
    onnx.save(found, str(destination))


def by_nncf_controlled(source: Path, destination: Path, images: torch.Tensor, name: str = "input") -> None:
    """The same with accuracy control, defaults: agreement with the 32-bit file on the images, 1% may go."""
    import nncf

    def classes(model: onnx.ModelProto, batch: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {name: batch})[0].argmax(1))

    def agreement(model: onnx.ModelProto, items: Any) -> tuple[float, list[float]]:
        shown, wanted = zip(*items, strict=True)
        hits = (classes(model, np.stack(shown)) == np.array(wanted)).astype(float)
        return float(hits.mean()), hits.tolist()

    model = onnx.load(str(source))
    judged = list(zip(images.numpy(), classes(model, images.numpy()), strict=True))
    found = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset([{name: image[None].numpy()} for image in images]),
        nncf.Dataset(judged),
        agreement,
        subset_size=len(images),
    )
    onnx.save(found, str(destination))


def measure(bench: TrainedNetwork, case: str, seed: int, work: Path) -> Row:
    """Accuracy and agreement of 32 bits, of plain 8 bits and of ours, and the sizes."""
    images = bench.context(seed, 0.25).images.images
    original = _written(bench.module, work / "original.onnx")
    source = original
    if case == "pruned 25%":
        removed = bench.plan("hybrid", 0.25, seed)
        source = _written(bench.recover(removed, images, seed).recovered, work / "pruned.onnx")
    if case == SMALL:
        source = _small(bench, seed, original.stat().st_size, work)
    if case == "badly scaled":
        source = _written(badly_scaled(bench.module, seed), work / "scaled.onnx")
    plain(source, work / "plain.onnx", images)
    by_nncf(source, work / "nncf.onnx", images)
    controlled = {}
    if case == "whole":
        by_nncf_controlled(source, work / "controlled.onnx", images)
        controlled = {"NNCF, accuracy control": work / "controlled.onnx"}
    ours = work / "ours.onnx"
    if case == SMALL:
        ours = source.with_name("model.onnx")
    else:
        form = integer_format(load_target(HOST))
        quantize_integers(source, ours, images, IntegerSettings(form=form, threads=torch.get_num_threads()))
    return {
        "case": case,
        "seed": seed,
        "original_size": original.stat().st_size,
        "models": {
            name: _judged(bench, path, source)
            for name, path in (
                ("32 bits", source),
                ("onnxruntime static", work / "plain.onnx"),
                ("NNCF", work / "nncf.onnx"),
                *controlled.items(),
                ("edgeprune int8", ours),
            )
        },
    }


def _small(bench: TrainedNetwork, seed: int, size_bytes: int, work: Path) -> Path:
    """25% of the MACs cut and a size that 8 bits must hold, asked for at once; the 32-bit file beside it."""
    pixels = bench.pixels(seed)
    np.savez(work / "images.npz", images=pixels)
    edgeprune.compress(
        bench.module, calibration=work / "images.npz", output=work / "small", input_shape=(3, 32, 32),
        preprocessing=load_card("cifar10"), ratio=0.25, precision=Precision.INT8, drop_blocks=False,
        width_quantum=1,
        budget=Budget(max_size_bytes=int(SIZE_SHARE * size_bytes)), held_out=0.1, seed=seed,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    return work / "small" / "model-fp32.onnx"


def _judged(bench: TrainedNetwork, path: Path, source: Path) -> Row:
    outputs, reference = (bench.onnx_outputs(p) for p in (path, source))
    return {
        "accuracy": float(bench.hits(torch.from_numpy(outputs)).mean()),
        "agreement": float((outputs.argmax(1) == reference.argmax(1)).mean()),
        "size": path.stat().st_size,
    }


def badly_scaled(network: ResNet20, seed: int) -> ResNet20:
    """The same function with the channels inside every block scaled by random factors."""
    found = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    for block in (*found.layer1, *found.layer2, *found.layer3):
        factors = torch.exp(SPREAD * torch.randn(block.conv1.weight.shape[0], generator=generator))
        with torch.no_grad():
            block.bn1.weight.mul_(factors)
            block.bn1.bias.mul_(factors)
            block.conv2.weight.div_(factors[None, :, None, None])
    return found


def _written(module: torch.nn.Module, path: Path) -> Path:
    exported = path.with_suffix(".exported.onnx")
    export_onnx(export_program(module, torch.zeros(2, 3, 32, 32)), exported)
    simplify_onnx(exported, path)
    return path


def render(rows: list[Row]) -> str:
    """One table: a line a case and file, means over seeds."""
    text = (
        "Whole test set of 10,000 images, 1,000 unlabelled training images for the ranges, another draw "
        "a seed;\n"
        "mean over seeds ± half of their range. *agreement*: same top class as the 32-bit file of the "
        "same line's\n"
        f"case. *badly scaled*: the same function with channels inside blocks scaled by exp({SPREAD} z).\n"
        "*size*: over the original's 32-bit file. *22% of the size*: `--ratio 0.25 --max-size` of so\n"
        "much and `--precision int8` at once, 100 of the images kept back, no blocks dropped.\n\n"
        "| network | file | seeds | accuracy | agreement | size |\n|---|---|---|---|---|---|\n"
    )
    for case in CASES:
        own = [row for row in rows if row["case"] == case]
        for name in own[0]["models"] if own else ():
            found = [row["models"][name] for row in own]
            size = np.mean([row["models"][name]["size"] / row["original_size"] for row in own])
            text += (
                f"| {case} | {name} | {len(own)} | {_spread([f['accuracy'] for f in found])} "
                f"| {_spread([f['agreement'] for f in found])} | {size:.3f} |\n"
            )
    return text


def _spread(values: list[float]) -> str:
    return f"{100 * np.mean(values):.2f} ± {50 * (max(values) - min(values)):.2f}"
