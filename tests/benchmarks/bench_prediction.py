"""Predictions against published latencies, in 32 and 8 bits: writes docs/benchmarks/prediction.md.

Run: python tests/benchmarks/bench_prediction.py [--fit]

Needs the research data (published_latencies.csv) in $EDGEPRUNE_RESEARCH_DATA or ../shared/data; skips
with a reason where it is missing. ``--fit`` also prints the factors that fit each device best.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from published_networks import UltraFace, mobilenet_v1, yolo11n, yolo11s
from quantized_random import quantized_with_random_images
from torch import nn

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.profiling.kinds import OpKind
from edgeprune.profiling.prediction import predict_runtime
from edgeprune.profiling.runtime.graph import Kernels, RuntimeWork, runtime_work
from edgeprune.storage.files import atomic_write_text
from edgeprune.system.compat import import_torchvision
from edgeprune.system.host import machine_description
from edgeprune.targets import IntegerRoofline, TargetProfile, list_targets, load_target

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "benchmarks" / "prediction.md"
MIN_ROWS_FOR_FIT = 4
WINOGRAD_SHARE_LIMIT = 0.1
RUNTIME_ALLOWANCE = 2.0
ARM = Kernels(signed=True, blocked=False)
# Where a fit starts and what it is drawn to where a device's rows do not tell factors apart.
PRIOR = {
    "conv_efficiency": 0.5,
    "depthwise_efficiency": 0.2,
    "parallel_efficiency": 0.5,
    "dispatch_overhead_us": 30.0,
    "int8.conv_efficiency": 0.25,
    "int8.depthwise_efficiency": 0.06,
}
LIMITS = dict.fromkeys(PRIOR, 1.0) | {"dispatch_overhead_us": 200.0}
PRIOR_WEIGHT = 0.005

# Device in the data -> (profile, clock of that board in GHz, why its rows do not count or "").
DEVICES = {
    "RPi 3+ (BCM2837B0)": ("rpi3", 1.4, ""),
    "RPi 3B+ @1.4GHz": ("rpi3", 1.4, ""),
    "RPi 4 (BCM2711, 32-bit)": ("rpi4", 1.5, "32-bit system"),
    "RPi 4 (BCM2711, ARM64)": ("rpi4", 1.5, ""),
    "RPi 4B @1.5GHz": ("rpi4", 1.5, ""),
    "RPi 4B @1.8GHz": ("rpi4", 1.8, ""),
    "RPi 5 @2.4GHz": ("rpi5", 2.4, ""),
    "RPi 5": ("rpi5", 2.4, ""),
    "RPi Zero 2W @1.0GHz": ("rpi-zero2", 1.0, ""),
    "Jetson Nano CPU (A57)": ("jetson-nano", 1.43, ""),
    "Jetson Nano B01 CPU": ("jetson-nano", 1.43, ""),
}
OURS = "ONNX Runtime"
RUNTIMES = ("XNNPACK", "ncnn", "OpenCV DNN", "ExecuTorch XNNPACK", OURS)
WINOGRAD_RUNTIMES = ("ncnn", "OpenCV DNN")
MODELS = {
    "MobileNetV1 1.0": "mobilenet_v1",
    "MobileNetV1": "mobilenet_v1",
    "image_classification_mobilenetv1_2022apr": "mobilenet_v1",
    "image_classification_mobilenetv1_2022apr_int8": "mobilenet_v1",
    "MobileNetV2 1.0": "mobilenet_v2",
    "MobileNetV2": "mobilenet_v2",
    "image_classification_mobilenetv2_2022apr": "mobilenet_v2",
    "image_classification_mobilenetv2_2022apr_int8": "mobilenet_v2",
    "MobileNetV3": "mobilenet_v3_large",
    "MobileNetV3-Large": "mobilenet_v3_large",
    "MobileNetV3-Small": "mobilenet_v3_small",
    "ShuffleNetV2": "shufflenet_v2_x1_0",
    "MnasNet": "mnasnet1_0",
    "EfficientNet-B0": "efficientnet_b0",
    "RegNetY-400M": "regnet_y_400mf",
    "SqueezeNet 1.0": "squeezenet1_0",
    "SqueezeNet 1.1": "squeezenet1_1",
    "GoogLeNet": "googlenet",
    "ResNet-18": "resnet18",
    "ResNet-50": "resnet50",
    "Wide-ResNet-50": "wide_resnet50_2",
    "Inception-v3": "inception_v3",
    "UltraFace RFB-320": "ultraface_rfb_320",
    "YOLO11n": "yolo11n",
    "YOLO11s": "yolo11s",
}
OWN = {
    "mobilenet_v1": mobilenet_v1,
    "ultraface_rfb_320": UltraFace,
    "yolo11n": yolo11n,
    "yolo11s": yolo11s,
}
# The data give the time in 8 bits and how many times slower fp32 was: the same measurement.
DERIVED = {("UltraFace RFB-320", "RPi 5"): 1.99}


@dataclass(frozen=True, kw_only=True)
class CountedModel:
    """Work of one exported model, and the share of MACs in dense 3x3 convolutions of stride 1."""

    name: str
    work: RuntimeWork
    integer: bool
    winograd_share: float

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.work.operations)


@dataclass(frozen=True)
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

    @property
    def ours(self) -> bool:
        return self.runtime.startswith(OURS)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """By node that runs: 2 x MACs, bytes, depthwise or not, 8 bits or not."""
        nodes = [op for op in self.model.work.operations if op.kind is not OpKind.FREE]
        return (
            np.array([2.0 * op.macs for op in nodes]),
            np.array([float(op.bytes_moved) for op in nodes]),
            np.array([op.kind is OpKind.DEPTHWISE for op in nodes]),
            np.array([op.integer for op in nodes]),
        )


def export(name: str, size: tuple[int, int], folder: Path) -> Path:
    """A file of the network with random weights."""
    torch.manual_seed(0)
    if name in OWN:
        module: nn.Module = OWN[name]()
    else:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        module = import_torchvision().models.get_model(name, weights=None, **options)
    path = folder / "model.onnx"
    torch.onnx.export(
        module.eval(), (torch.zeros(1, 3, *size),), str(path), dynamo=False, opset_version=17, verbose=False
    )
    return path


def count_model(name: str, size: tuple[int, int], integer: bool) -> CountedModel:
    """Export with random weights, count as onnxruntime runs it on Arm, and forget the file again."""
    with tempfile.TemporaryDirectory() as folder:
        path = export(name, size, Path(folder))
        share = winograd_share(path)
        if integer:
            path = quantized_with_random_images(path, Path(folder) / "int8.onnx", signed=True)
        work = runtime_work(path, ARM)
    assert not work.note, (name, work.note)
    return CountedModel(name=name, work=work, integer=integer, winograd_share=share)


def winograd_share(path: Path) -> float:
    """Share of the MACs that a runtime with Winograd kernels computes with fewer multiplications."""
    attributes = {
        node.name: {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for node in onnx.load(str(path), load_external_data=False).graph.node
    }
    work = runtime_work(path, ARM).operations

    def fits(name: str) -> bool:
        given = attributes.get(name, {})
        square = list(given.get("kernel_shape", [])) == [3, 3]
        return square and list(given.get("strides", [1, 1])) == [1, 1] and given.get("group", 1) == 1

    return sum(op.macs for op in work if fits(op.name)) / sum(op.macs for op in work)


def kept_count(name: str, size: tuple[int, int], integer: bool, results: Path | None) -> CountedModel:
    """As ``count_model``; kept in the folder ``results``, if any."""
    if results is None:
        return count_model(name, size, integer)
    path = results / f"{name}-{size[0]}-{8 if integer else 32}.json"
    if not path.exists():
        counted = count_model(name, size, integer)
        results.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(to_jsonable(counted)))
    return from_jsonable(CountedModel, json.loads(path.read_text()))


def load_rows(data: Path, results: Path | None) -> tuple[Row, ...]:
    """Rows of quality A or B in 32 and 8 bits for devices and models that we have."""
    counted: dict[tuple[str, tuple[int, int], bool], CountedModel] = {}
    rows = []

    def model_of(given: dict[str, str], integer: bool) -> CountedModel:
        name = MODELS[given["model"]]
        key = (name, size_of(given["input"], name), integer)
        if key not in counted:
            print(f"counting {name} at {key[1]} in {8 if integer else 32} bits", file=sys.stderr)
            counted[key] = kept_count(*key, results)
        return counted[key]

    with data.open(encoding="utf-8", newline="") as stream:
        for given in csv.DictReader(stream):
            precision = given["precision"].split("/")[0].split()[0]
            wanted = (
                precision in ("fp32", "int8")
                and "unclear" not in given["precision"]
                and given["quality"] in ("A", "B")
                and given["device"] in DEVICES
                and given["model"] in MODELS
                and given["runtime"].startswith(RUNTIMES)
            )
            if not wanted:
                continue
            rows.append(make_row(given, model_of(given, precision == "int8"), 1.0))
            times = DERIVED.get((given["model"], given["device"]))
            if times is not None and precision == "int8":
                rows.append(make_row(given, model_of(given, False), times))
    return tuple(rows)


def size_of(text: str, name: str) -> tuple[int, int]:
    """Height and width of an input such as 1x3x224x224 or 1x224x224x3."""
    sizes = [int(s) for s in text.split("x") if s.isdigit() and int(s) > 4]
    if name == "ultraface_rfb_320":
        return 240, 320
    return (sizes[0], sizes[0]) if sizes else (224, 224)


def make_row(given: dict[str, str], model: CountedModel, times: float) -> Row:
    """A row of the data with the reason why it does not count, if any."""
    target, clock_ghz, excluded = DEVICES[given["device"]]
    if given["runtime"].startswith("ncnn") and target == "rpi5" and not model.integer:
        excluded = "half-precision arithmetic"
    winograd = given["runtime"].startswith(WINOGRAD_RUNTIMES) and model.winograd_share > WINOGRAD_SHARE_LIMIT
    if winograd and not excluded:
        excluded = f"Winograd on {100 * model.winograd_share:.0f}% of the MACs"
    return Row(
        model, given["device"], target, clock_ghz, int(given["threads"].split()[0]), given["runtime"],
        times * float(given["latency_ms"]), excluded,
    )  # fmt: skip


def predicted_ms(row: Row, profile: TargetProfile) -> float:
    """Prediction of the shipped code at the clock of the board that was measured."""
    assert profile.roofline is not None
    at_clock = dataclasses.replace(profile.roofline, clock_ghz=row.clock_ghz)
    used = dataclasses.replace(profile, roofline=at_clock)
    return predict_runtime(row.model.work, used, threads=row.threads).latency_ms


def fast_ms(row: Row, profile: TargetProfile, factors: dict[str, float]) -> float:
    """The same as ``predicted_ms`` with other factors, for a fit that asks thousands of times."""
    flops, moved, depthwise, integer = row.arrays
    assert profile.roofline is not None
    eight = profile.int8_peak_factor
    share = np.where(depthwise, factors["depthwise_efficiency"], factors["conv_efficiency"])
    shares = np.where(depthwise, factors["int8.depthwise_efficiency"], factors["int8.conv_efficiency"])
    at_clock = profile.peak_gflops_per_core * row.clock_ghz / profile.roofline.clock_ghz
    cores = 1 + (row.threads - 1) * factors["parallel_efficiency"]
    compute = flops / (at_clock * 1e6 * cores * np.where(integer, eight * shares, share))
    memory = moved / (profile.roofline.memory_bandwidth_gb_per_s * 1e6)
    return float(np.maximum(compute, memory).sum() + len(flops) * factors["dispatch_overhead_us"] / 1e3)


def fit(rows: Sequence[Row], prior: dict[str, float] | None = None) -> dict[str, float]:
    """Factors with the least squared log ratio, by coordinate descent with a shrinking step.

    A weak pull to the prior keeps a factor that the rows say nothing about at a sensible value.
    """
    start = dict(PRIOR if prior is None else prior)
    profiles = {name: load_target(name) for name in {row.target for row in rows}}

    def loss(factors: dict[str, float]) -> float:
        errors = [math.log(row.published_ms / fast_ms(row, profiles[row.target], factors)) for row in rows]
        pull = [math.log(factors[name] / start[name]) for name in start]
        return float(np.mean(np.square(errors)) + PRIOR_WEIGHT * np.sum(np.square(pull)))

    best, step = start, 1.6
    best_loss = loss(best)
    while step > 1.02:
        moved = False
        for name in start:
            for factor in (step, 1 / step):
                candidate = best | {name: min(best[name] * factor, LIMITS[name])}
                if (candidate_loss := loss(candidate)) < best_loss - 1e-9:
                    best, best_loss, moved = candidate, candidate_loss, True
        step = step if moved else math.sqrt(step)
    return best


def held_out(
    rows: Sequence[Row], key: Callable[[Row], str], prior: dict[str, float] | None = None
) -> np.ndarray:
    """Log ratios of rows, published over predicted by factors fitted without their group (by ``key``)."""
    logs = np.zeros(len(rows))
    for group in sorted({key(row) for row in rows}):
        rest = [row for row in rows if key(row) != group]
        factors = fit(rest, prior) if rest else dict(PRIOR if prior is None else prior)
        for place, row in enumerate(rows):
            if key(row) == group:
                logs[place] = math.log(row.published_ms / fast_ms(row, load_target(row.target), factors))
    return logs


def without_target(rows: Sequence[Row], target: str) -> dict[str, float]:
    """Geometric means of the factors of all other boards that have enough rows."""
    others = [
        fit([row for row in rows if row.target == name])
        for name in sorted({row.target for row in rows} - {target})
        if sum(row.target == name for row in rows) >= MIN_ROWS_FOR_FIT
    ]
    return {name: float(np.exp(np.mean([math.log(f[name]) for f in others]))) for name in PRIOR}


def with_factors(profile: TargetProfile, factors: dict[str, float]) -> TargetProfile:
    """The profile with other factors; matrix products are as efficient as convolutions."""
    assert profile.roofline is not None
    conv8, depthwise8 = (factors[f"int8.{name}_efficiency"] for name in ("conv", "depthwise"))
    int8 = IntegerRoofline(
        conv_efficiency=conv8, depthwise_efficiency=depthwise8, gemm_efficiency=conv8, error_low_factor=1.0,
        error_high_factor=1.0, error_reason="none",
    )  # fmt: skip
    shared = {name: value for name, value in factors.items() if not name.startswith("int8.")}
    roofline = dataclasses.replace(
        profile.roofline, **shared, gemm_efficiency=factors["conv_efficiency"], int8=int8
    )
    return dataclasses.replace(profile, roofline=roofline)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Rows of one board that count, with published over predicted by factors fitted without their model."""

    target: str
    rows: tuple[Row, ...]
    held_out: np.ndarray
    fitted: dict[str, float]

    @cached_property
    def predicted(self) -> np.ndarray:
        """Held-out predictions in milliseconds."""
        return np.array([row.published_ms for row in self.rows]) / np.exp(self.held_out)

    def chosen(self, integer: bool | None = None, ours: bool | None = None) -> list[int]:
        """Places of the rows of a precision and of onnxruntime or other runtimes; ``None``: any."""
        return [
            place
            for place, row in enumerate(self.rows)
            if integer in (None, row.model.integer) and ours in (None, row.ours)
        ]

    def spearman(self, places: Sequence[int]) -> float:
        """Rank correlation of published and held-out predicted times."""
        published = np.array([self.rows[place].published_ms for place in places])
        return float(np.corrcoef(ranks(published), ranks(self.predicted[list(places)]))[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties shared."""
    return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])


def judge(rows: Sequence[Row], target: str) -> Judged | None:
    """Held-out predictions of a board; boards with rows of onnxruntime are fitted to those alone."""
    usable = [row for row in rows if row.target == target and not row.excluded]
    ours = [row for row in usable if row.ours]
    prior = without_target([row for row in rows if not row.excluded], target) if ours else None
    fitting = ours or usable
    if len(fitting) < MIN_ROWS_FOR_FIT:
        return None
    logs = held_out(fitting, lambda row: row.model.name, prior)
    others = [row for row in usable if row not in fitting]
    fitted = fit(fitting, prior)
    more = [math.log(row.published_ms / fast_ms(row, load_target(target), fitted)) for row in others]
    return Judged(
        target=target, rows=(*fitting, *others), held_out=np.concatenate([logs, more]), fitted=fitted
    )


def spread(logs: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean, 5% and 95% quantile of published over predicted."""
    return tuple(float(np.exp(x)) for x in (logs.mean(), np.quantile(logs, 0.05), np.quantile(logs, 0.95)))  # type: ignore[return-value]


def device_lines(judged: Sequence[Judged]) -> list[str]:
    """One line a board, precision and kind of runtime."""
    lines = []
    for board in judged:
        profile = load_target(board.target)
        assert profile.roofline is not None
        for integer in (False, True):
            for ours in (True, False):
                places = board.chosen(integer, ours)
                if not places:
                    continue
                mean, low, high = spread(board.held_out[places])
                part = profile.roofline.int8 if integer and profile.roofline.int8 else profile.roofline
                shipped = [board.rows[p].published_ms / predicted_ms(board.rows[p], profile) for p in places]
                inside = np.mean([part.error_low_factor <= x <= part.error_high_factor for x in shipped])
                middle = float(np.exp(np.median(np.abs(board.held_out[places]))))
                correlation = f"{board.spearman(places):.2f}" if len(places) > 3 else "-"
                lines.append(
                    f"| {board.target} | {8 if integer else 32} | {OURS if ours else 'others'} | "
                    f"{len(places)} "
                    f"| {mean:.2f} | {low:.2f} to {high:.2f} | {middle:.2f} | {correlation} | "
                    f"{part.error_low_factor} to {part.error_high_factor} ({100 * inside:.0f}% inside) |"
                )
    return lines


def aims(judged: Sequence[Judged]) -> list[str]:
    """What was asked for, and whether it holds."""
    lines = []
    for board in judged:
        places = board.chosen(ours=True) or board.chosen()
        found = board.spearman(places)
        what = f"all {len(places)} rows" + (" of onnxruntime" if board.rows[places[0]].ours else "")
        lines.append(
            f"- {board.target}: Spearman {found:.2f} over {what}, in 32 and 8 bits "
            f"(at least .9: {'holds' if found >= 0.9 else 'does not hold'})"
        )
    ours = np.concatenate([board.held_out[board.chosen(ours=True)] for board in judged])
    middle, mean = float(np.exp(np.median(np.abs(ours)))), float(np.exp(abs(ours.mean())))
    lines += [
        f"- rows of onnxruntime ({len(ours)}): geometric mean within {mean:.2f}x "
        f"(1.3x: {'holds' if mean <= 1.3 else 'does not hold'}), median of the single errors {middle:.2f}x "
        f"(1.25x: {'holds' if middle <= 1.25 else 'does not hold'})"
    ]
    return lines


def transfer_line(rows: Sequence[Row]) -> str:
    """How well factors carry over to a device that gave no row."""
    usable = [row for row in rows if not row.excluded and not row.ours and row.target != "rpi5"]
    logs = held_out(usable, lambda row: row.target)
    told = []
    for integer in (False, True):
        mean, low, high = spread(logs[[row.model.integer is integer for row in usable]])
        told.append(
            f"{8 if integer else 32} bits: geometric mean {mean:.2f}, 90% within {low:.2f} to {high:.2f}"
        )
    return f"Factors fitted on all other devices, published over predicted; {'; '.join(told)}."


def row_lines(rows: Sequence[Row], judged: Sequence[Judged]) -> list[str]:
    """One line of the report per published row."""
    held = {id(row): ms for board in judged for row, ms in zip(board.rows, board.predicted, strict=True)}
    lines = []
    for row in sorted(rows, key=lambda r: (r.target, r.model.integer, r.threads, r.model.name, r.device)):
        predicted = predicted_ms(row, load_target(row.target))
        apart = f"{held[id(row)]:.1f}" if id(row) in held else "-"
        lines.append(
            f"| {row.target} | {row.device} | {row.model.name} | {8 if row.model.integer else 32} | "
            f"{row.model.macs / 1e6:.0f} | {row.threads} | {row.runtime} | {predicted:.1f} | {apart} | "
            f"{row.published_ms:.4g} | {predicted / row.published_ms:.2f} | {row.excluded or 'yes'} |"
        )
    return lines


INTRODUCTION = """# Predicted against published latencies

Written by `python tests/benchmarks/bench_prediction.py`; do not edit. Predictions are those of
`edgeprune.profiling.prediction` for the shipped profiles: 32 and 8 bits, one image, on the graph that
onnxruntime runs, at the clock of the board that was measured. Others measured: this project measured nothing
on these devices, and most figures come from other runtimes than onnxruntime. What has onnxruntime's own
figures (Raspberry Pi 5) is fitted to those alone, drawn to the factors of the other boards.

**Held out**: predicted by factors that were fitted without any row of that model. The shipped factors were
fitted to all rows of the board that count, so the column *predicted* tells how they fit, and *held out* how
well they predict.

Rows that do not count, and why:

- **Winograd**: ncnn and OpenCV compute dense 3x3 convolutions of stride 1 with fewer multiplications;
  onnxruntime's Arm64 kernels do not. Models with more than {limit:.0f}% of their MACs there are only listed.
- **half-precision arithmetic**: ncnn uses it where the processor has it; onnxruntime with an fp32 model
  does not.
- **32-bit system**: the profiles describe 64-bit ones.

A band starts at the lower end of the held-out range (5% to 95% quantile) and ends at {allowance:.0f} times
its upper end in 32 bits and 4 times in 8 bits, rounded outwards, where no row is onnxruntime's. It took 1.7
to 1.9 times as long as ncnn and 1.2 to 1.5 times as long as MNN for the same models on a Raspberry Pi 5
(YOLO11n and YOLO11s, Ultralytics documentation, Raspberry Pi guide), and in 8 bits on that board other
runtimes are up to four times as fast as onnxruntime (rows of ExecuTorch below).
"""


def report(rows: Sequence[Row], judged: Sequence[Judged]) -> str:
    """The whole document."""
    versions = ", ".join(
        f"{p} {version(p)}" for p in ("edgeprune", "onnx", "onnxruntime", "torch", "torchvision")
    )
    return "\n".join(
        [
            INTRODUCTION.format(limit=100 * WINOGRAD_SHARE_LIMIT, allowance=RUNTIME_ALLOWANCE),
            f"Counted on: {machine_description()}; {versions}, Python {sys.version.split()[0]}.",
            "",
            "## What was aimed at",
            "",
            *aims(judged),
            "",
            "## Devices (published over predicted, held out)",
            "",
            "| target | bits | runtime | rows that count | geometric mean | 90% of the rows | median "
            "of the single "
            "errors | Spearman | profile's band, shipped factors |",
            "|---|---|---|---|---|---|---|---|---|",
            *device_lines(judged),
            "",
            transfer_line(rows),
            "",
            "## Rows",
            "",
            "| target | device | model | bits | MMACs | threads | runtime | predicted ms | held out "
            "ms | published ms "
            "| predicted / published | counts |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
            *row_lines(rows, judged),
            "",
        ]
    )


def main() -> int:
    """Write the report; 0 also where the data are missing (with the reason)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="only print the factors that fit each device best")
    parser.add_argument("--results", type=Path, help="folder that keeps what was counted")
    arguments = parser.parse_args()
    folder = Path(os.environ.get("EDGEPRUNE_RESEARCH_DATA", ROOT.parent / "shared" / "data"))
    data = folder / "published_latencies.csv"
    if not data.is_file():
        print(f"skipped: no {data.name} in $EDGEPRUNE_RESEARCH_DATA or ../shared/data", file=sys.stderr)
        return 0
    torch.set_num_threads(1)
    rows = load_rows(data, arguments.results)
    judged = [board for name in list_targets() if (board := judge(rows, name)) is not None]
    if arguments.fit:
        for board in judged:
            print(f"{board.target}: " + ", ".join(f"{n} {v:.3f}" for n, v in board.fitted.items()))
            for integer in (False, True):
                if places := board.chosen(integer):
                    shown = ", ".join(f"{x:.2f}" for x in spread(board.held_out[places]))
                    print(f"  {8 if integer else 32} bits: {len(places)} rows, held out {shown}")
            for row, ms in zip(board.rows, board.predicted, strict=True):
                if row.ours or row.model.integer:
                    print(
                        f"    {row.model.name} {row.model.integer} {row.threads} {row.runtime} "
                        f"{ms:.1f} {row.published_ms}"
                    )
        usable = [row for row in rows if not row.excluded]
        for name in ("none", "rpi5"):
            print(name, without_target(usable, name))
        print(transfer_line(rows))
        print("\n".join(aims(judged)))
        return 0
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(REPORT, report(rows, judged))
    print(f"wrote {REPORT.relative_to(ROOT)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
