"""Roofline predictions against published latencies: writes docs/benchmarks/prediction.md.

Run: python tests/benchmarks/bench_prediction.py [--fit]

Needs the research data (published_latencies.csv) in $EDGEPRUNE_RESEARCH_DATA or ../shared/data; skips
with a reason where it is missing. ``--fit`` also prints the factors that fit each device best.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from edgeprune.profiling.prediction import predict_work
from edgeprune.profiling.work import OpWork, count_work
from edgeprune.storage.files import atomic_write_text
from edgeprune.system.compat import import_torchvision
from edgeprune.system.host import machine_description
from edgeprune.targets import Roofline, TargetProfile, list_targets, load_target

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "benchmarks" / "prediction.md"
MIN_ROWS_FOR_FIT = 8
WINOGRAD_SHARE_LIMIT = 0.1
RUNTIME_ALLOWANCE = 2.0
# Where a fit starts and what it is drawn to where a device's rows do not tell factors apart.
PRIOR = {
    "conv_efficiency": 0.5,
    "depthwise_efficiency": 0.2,
    "parallel_efficiency": 0.5,
    "dispatch_overhead_us": 30.0,
}
PRIOR_WEIGHT = 0.005

# Device in the data -> (profile, clock of that board in GHz, why its rows do not count or "").
DEVICES = {
    "RPi 3+ (BCM2837B0)": ("rpi3", 1.4, ""),
    "RPi 3B+ @1.4GHz": ("rpi3", 1.4, ""),
    "RPi 4 (BCM2711, 32-bit)": ("rpi4", 1.5, "32-bit system"),
    "RPi 4 (BCM2711, ARM64)": ("rpi4", 1.5, ""),
    "RPi 4B @1.5GHz": ("rpi4", 1.5, ""),
    "RPi 4B @1.8GHz": ("rpi4", 1.8, ""),
    "RPi 5 @2.4GHz": ("rpi5", 2.4, "half-precision arithmetic"),
    "RPi Zero 2W @1.0GHz": ("rpi-zero2", 1.0, ""),
    "Jetson Nano CPU (A57)": ("jetson-nano", 1.43, ""),
    "Jetson Nano B01 CPU": ("jetson-nano", 1.43, ""),
}
RUNTIMES = ("XNNPACK", "ncnn", "OpenCV DNN", "MNN", "ONNX Runtime", "TFLite")
WINOGRAD_RUNTIMES = ("ncnn", "OpenCV DNN", "MNN")
MODELS = {
    "MobileNetV1 1.0": "mobilenet_v1",
    "MobileNetV1": "mobilenet_v1",
    "image_classification_mobilenetv1_2022apr": "mobilenet_v1",
    "MobileNetV2 1.0": "mobilenet_v2",
    "MobileNetV2": "mobilenet_v2",
    "image_classification_mobilenetv2_2022apr": "mobilenet_v2",
    "MobileNetV3": "mobilenet_v3_large",
    "MobileNetV3-Large": "mobilenet_v3_large",
    "MobileNetV3-Small": "mobilenet_v3_small",
    "ShuffleNetV2": "shufflenet_v2_x1_0",
    "MnasNet": "mnasnet1_0",
    "EfficientNet-B0": "efficientnet_b0",
    "RegNetY-400M": "regnet_y_400mf",
    "SqueezeNet 1.1": "squeezenet1_1",
    "GoogLeNet": "googlenet",
    "ResNet-18": "resnet18",
    "ResNet-50": "resnet50",
    "VGG-16": "vgg16",
}


@dataclass(frozen=True, kw_only=True)
class CountedModel:
    """Work of one exported model, and the share of MACs in dense 3x3 convolutions of stride 1."""

    name: str
    work: tuple[OpWork, ...]
    winograd_share: float

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.work)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published latency of a model that we can count; ``excluded`` says why it does not count."""

    model: CountedModel
    device: str
    target: str
    clock_ghz: float
    threads: int
    runtime: str
    published_ms: float
    excluded: str


def mobilenet_v1() -> nn.Module:
    """MobileNet v1, width 1.0 (Howard et al. 2017, table 1); torchvision has none."""
    layers: list[nn.Module] = []

    def convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
        padding = kernel // 2
        layers.extend(
            [
                nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU6(),
            ]
        )

    convolution(3, 32, 3, 2)
    width = 32
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for outputs, stride in plan:
        convolution(width, width, 3, stride, groups=width)
        convolution(width, outputs, 1, 1)
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


def count_model(name: str, size: int) -> CountedModel:
    """Export with random weights, count, and forget the file again."""
    torch.manual_seed(0)
    if name == "mobilenet_v1":
        module = mobilenet_v1()
    else:
        options = {"init_weights": False} if name == "googlenet" else {}
        module = import_torchvision().models.get_model(name, weights=None, **options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        program = torch.onnx.export(
            module.eval(), (torch.zeros(1, 3, size, size),), dynamo=True, verbose=False, optimize=True
        )
        program.save(str(path), external_data=True)
        return CountedModel(name=name, work=count_work(path), winograd_share=winograd_share(path))


def winograd_share(path: Path) -> float:
    """Share of the MACs that a runtime with Winograd kernels computes with fewer multiplications."""
    attributes = {
        node.name: {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for node in onnx.load(str(path), load_external_data=False).graph.node
    }
    work = count_work(path)

    def fits(op: OpWork) -> bool:
        given = attributes.get(op.name, {})
        square = list(given.get("kernel_shape", [])) == [3, 3]
        return square and list(given.get("strides", [1, 1])) == [1, 1] and given.get("group", 1) == 1

    return sum(op.macs for op in work if fits(op)) / sum(op.macs for op in work)


def load_rows(data: Path) -> tuple[Row, ...]:
    """fp32 rows of quality A or B for devices and models that we have."""
    counted: dict[tuple[str, int], CountedModel] = {}
    rows = []
    with data.open(encoding="utf-8", newline="") as stream:
        for given in csv.DictReader(stream):
            wanted = (
                given["precision"].startswith("fp32")
                and given["quality"] in ("A", "B")
                and given["device"] in DEVICES
                and given["model"] in MODELS
                and given["runtime"].startswith(RUNTIMES)
            )
            if not wanted:
                continue
            name, size = MODELS[given["model"]], 227 if "227" in given["input"] else 224
            if (name, size) not in counted:
                print(f"counting {name} at {size}", file=sys.stderr)
                counted[name, size] = count_model(name, size)
            rows.append(make_row(given, counted[name, size]))
    return tuple(rows)


def make_row(given: dict[str, str], model: CountedModel) -> Row:
    """A row of the data with the reason why it does not count, if any."""
    target, clock_ghz, excluded = DEVICES[given["device"]]
    winograd = given["runtime"].startswith(WINOGRAD_RUNTIMES) and model.winograd_share > WINOGRAD_SHARE_LIMIT
    if winograd and not excluded:
        excluded = f"Winograd on {100 * model.winograd_share:.0f}% of the MACs"
    return Row(
        model=model,
        device=given["device"],
        target=target,
        clock_ghz=clock_ghz,
        threads=int(given["threads"].split()[0]),
        runtime=given["runtime"],
        published_ms=float(given["latency_ms"]),
        excluded=excluded,
    )


def predicted_ms(row: Row, profile: TargetProfile, roofline: Roofline) -> float:
    """Prediction at the clock of the board that was measured."""
    at_clock = dataclasses.replace(roofline, clock_ghz=row.clock_ghz)
    used = dataclasses.replace(profile, roofline=at_clock)
    return predict_work(row.model.work, used, threads=row.threads).latency_ms


def log_ratios(rows: Sequence[Row], roofline: Roofline) -> np.ndarray:
    """Natural logarithm of published over predicted."""
    profiles = {name: load_target(name) for name in {row.target for row in rows}}
    return np.array(
        [math.log(row.published_ms / predicted_ms(row, profiles[row.target], roofline)) for row in rows]
    )


def fit(rows: Sequence[Row]) -> Roofline:
    """Factors with the least squared log ratio, by coordinate descent with a shrinking step.

    A weak pull to ``PRIOR`` keeps a factor that the rows say nothing about at a sensible value.
    """
    profiles = {name: load_target(name) for name in {row.target for row in rows}}
    limits = dict.fromkeys(PRIOR, 1.0) | {"dispatch_overhead_us": 200.0}

    def loss(factors: dict[str, float]) -> float:
        errors = [
            math.log(row.published_ms / predicted_ms(row, profile, with_factors(profile, factors)))
            for row in rows
            for profile in (profiles[row.target],)
        ]
        pull = [math.log(factors[name] / PRIOR[name]) for name in PRIOR]
        return float(np.mean(np.square(errors)) + PRIOR_WEIGHT * np.sum(np.square(pull)))

    best, step = dict(PRIOR), 1.6
    best_loss = loss(best)
    while step > 1.02:
        moved = False
        for name in PRIOR:
            for factor in (step, 1 / step):
                candidate = best | {name: min(best[name] * factor, limits[name])}
                if (candidate_loss := loss(candidate)) < best_loss - 1e-9:
                    best, best_loss, moved = candidate, candidate_loss, True
        step = step if moved else math.sqrt(step)
    return with_factors(next(iter(profiles.values())), best)


def with_factors(profile: TargetProfile, factors: dict[str, float]) -> Roofline:
    """The profile's roofline with other factors; matrix products are as efficient as convolutions."""
    assert profile.roofline is not None
    return dataclasses.replace(profile.roofline, **factors, gemm_efficiency=factors["conv_efficiency"])


def held_out_log_ratios(rows: Sequence[Row], key: Callable[[Row], str]) -> np.ndarray:
    """Log ratios of rows predicted by factors that were fitted without them (groups named by ``key``)."""
    found: list[float] = []
    for group in sorted({key(row) for row in rows}):
        fitted = fit([row for row in rows if key(row) != group])
        factors = {name: getattr(fitted, name) for name in PRIOR}
        for row in rows:
            if key(row) == group:
                profile = load_target(row.target)
                predicted = predicted_ms(row, profile, with_factors(profile, factors))
                found.append(math.log(row.published_ms / predicted))
    return np.array(found)


def spread(logs: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean, 5% and 95% quantile of published over predicted."""
    return (
        math.exp(logs.mean()),
        math.exp(np.quantile(logs, 0.05)),
        math.exp(np.quantile(logs, 0.95)),
    )


def device_table(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Summary lines of the report and lines for ``--fit``."""
    lines, fits = [], []
    usable = [row for row in rows if not row.excluded]
    for target in (name for name in list_targets() if name != "host"):
        own = [row for row in usable if row.target == target]
        roofline = load_target(target).roofline
        assert roofline is not None
        band = f"{roofline.error_low_factor} to {roofline.error_high_factor}"
        if len(own) < MIN_ROWS_FOR_FIT:
            lines.append(f"| {target} | {len(own)} | - | - | - | {band} |")
            continue
        mean, low, high = spread(log_ratios(own, roofline))
        _, out_low, out_high = spread(held_out_log_ratios(own, lambda row: row.model.name))
        inside = np.exp(log_ratios(own, roofline))
        share = np.mean((inside >= roofline.error_low_factor) & (inside <= roofline.error_high_factor))
        lines.append(
            f"| {target} | {len(own)} | {mean:.2f} | {low:.2f} to {high:.2f} | "
            f"{out_low:.2f} to {out_high:.2f} | {band} ({100 * share:.0f}% of the rows inside) |"
        )
        found = fit(own)
        fits.append(f"{target}: " + ", ".join(f"{n} {getattr(found, n):.3f}" for n in PRIOR))
        fits.append(
            f"  held-out band {out_low:.2f} to {out_high:.2f}, high with the runtime allowance "
            f"{out_high * RUNTIME_ALLOWANCE:.2f}"
        )
    return lines, fits


def transfer_line(rows: Sequence[Row]) -> str:
    """How well factors carry over to a device that gave no row."""
    usable = [row for row in rows if not row.excluded]
    mean, low, high = spread(held_out_log_ratios(usable, lambda row: row.target))
    return (
        f"Factors fitted on all other devices, published over predicted: geometric mean {mean:.2f}, "
        f"90% within {low:.2f} to {high:.2f}."
    )


def row_lines(rows: Sequence[Row]) -> list[str]:
    """One line of the report per published row."""
    lines = []
    for row in sorted(rows, key=lambda r: (r.target, r.threads, r.model.name, r.device)):
        profile = load_target(row.target)
        assert profile.roofline is not None
        predicted = predicted_ms(row, profile, profile.roofline)
        ratio = predicted / row.published_ms
        lines.append(
            f"| {row.target} | {row.device} | {row.model.name} | {row.model.macs / 1e6:.0f} | "
            f"{row.threads} | {row.runtime} | {predicted:.1f} | {row.published_ms:g} | {ratio:.2f} | "
            f"{row.excluded or 'yes'} |"
        )
    return lines


INTRODUCTION = """# Predicted against published latencies

Written by `python tests/benchmarks/bench_prediction.py`; do not edit. Predictions are those of
`edgeprune.profiling.prediction.predict` for the shipped profiles: fp32, one image, at the clock of the board
that was measured. The published figures come from other runtimes than onnxruntime (no public onnxruntime
figures of these models on these boards were found), and others measured them: this project measured nothing
on a device.

Rows that do not count, and why:

- **Winograd**: ncnn and OpenCV compute dense 3x3 convolutions of stride 1 with fewer multiplications;
  onnxruntime's Arm64 kernels do not. Models with more than {limit:.0f}% of their MACs there are only listed.
  So no row that counts tells how well the prediction holds for models of mostly 3x3 convolutions.
- **half-precision arithmetic**: ncnn uses it where the processor has it; onnxruntime with an fp32 model
  does not.
- **32-bit system**: the profiles describe 64-bit ones.

The held-out range is that of published over predicted when the factors are fitted without any row of the
model that they predict (5% to 95% quantile). A profile's band starts at the lower end of that range and ends
at {allowance:.0f} times its upper end, both rounded outwards: onnxruntime took 1.7 to 1.9 times as long as
ncnn and 1.2 to 1.5 times as long as MNN for the same models on a Raspberry Pi 5 (YOLO11n and YOLO11s,
Ultralytics documentation, Raspberry Pi guide). Devices without enough rows have a band of 0.33 to 4.
"""


def report(rows: Sequence[Row], lines: Sequence[str]) -> str:
    """The whole document."""
    versions = ", ".join(f"{p} {version(p)}" for p in ("edgeprune", "onnx", "torch", "torchvision"))
    return "\n".join(
        [
            INTRODUCTION.format(limit=100 * WINOGRAD_SHARE_LIMIT, allowance=RUNTIME_ALLOWANCE),
            f"Counted on: {machine_description()}; {versions}, Python {sys.version.split()[0]}.",
            "",
            "## Devices (published over predicted)",
            "",
            "| target | rows that count | geometric mean | 90% of the rows | held-out 90% | profile's band |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
            transfer_line(rows),
            "",
            "## Rows",
            "",
            "| target | device | model | MMACs | threads | runtime | predicted ms | published ms | "
            "predicted / published | counts |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *row_lines(rows),
            "",
        ]
    )


def main() -> int:
    """Write the report; 0 also where the data are missing (with the reason)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="print the factors that fit each device best")
    arguments = parser.parse_args()
    folder = Path(os.environ.get("EDGEPRUNE_RESEARCH_DATA", ROOT.parent / "shared" / "data"))
    data = folder / "published_latencies.csv"
    if not data.is_file():
        print(f"skipped: no {data.name} in $EDGEPRUNE_RESEARCH_DATA or ../shared/data", file=sys.stderr)
        return 0
    torch.set_num_threads(1)
    rows = load_rows(data)
    lines, fits = device_table(rows)
    if arguments.fit:
        print("\n".join([*fits, transfer_line(rows)]))
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(REPORT, report(rows, lines))
    print(f"wrote {REPORT.relative_to(ROOT)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
