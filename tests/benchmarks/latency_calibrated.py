"""This host calibrated, then networks that were not used for fitting: predicted against measured CPU time.

The speed of a shared machine changes by a half from minute to minute. So every network is measured in turns
with a file of the calibration, and its time is that ratio times what the file took in the calibration.

Run: python tests/benchmarks/latency_calibrated.py [--results FOLDER] [--limit-minutes N]
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import commits, folder_or_scratch, header, keep, write_result
from quantized_random import quantized_with_random_images
from torch import nn

from edgeprune.commands.targets.calibration import ThisHost, calibrate
from edgeprune.commands.targets.measuring import NetworkTime, measure_here, ratio_to
from edgeprune.profiling.prediction import predict
from edgeprune.profiling.timing import open_runner
from edgeprune.system.compat import import_torchvision
from edgeprune.targets import TargetProfile, load_target, to_toml

LOOKED_AT = (
    "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x1_0", "vit_tiny_patch16_224", "mobilenet_v3_small",
    "lcnet_050", "resnet18",
)  # fmt: skip
"""Networks that the form of the tables was chosen with; they are not among those judged."""
TORCHVISION = (
    "mobilenet_v3_large", "efficientnet_b0", "mnasnet0_5", "mnasnet1_0",
    "regnet_x_400mf", "regnet_y_400mf",
)  # fmt: skip
TIMM = (
    "tinynet_e", "resnet10t", "mobilenetv4_conv_small", "efficientnet_lite0", "hardcorenas_a",
    "semnasnet_075", "convnext_atto", "efficientvit_b0", "repvit_m0_9", "mobilevitv2_050", "mobilevit_xxs",
    "ghostnet_100", "deit_tiny_patch16_224", "resnext26ts",
)  # fmt: skip
LARGE = ("googlenet", "densenet121")
"""Last, since they take longest."""
PRUNED = ("resnet10t", "mobilenet_v3_large", "regnet_x_400mf", "efficientnet_lite0")
RATIOS = ((0.1, None), (0.2, 8), (0.3, None), (0.4, 8), (0.5, None), (0.6, 8))
"""Shares of channels that go, and what widths stay multiples of; ``None``: odd ones as they come."""
SIZE = 224
ROUNDS = 5
PROFILE, YARDSTICK, YARDSTICK_MS = "this-host.toml", "yardstick.onnx", "yardstick.json"


def network(name: str) -> nn.Module:
    """A classifier with random weights."""
    torch.manual_seed(0)
    models = import_torchvision().models
    if name in models.list_models():
        options = {"init_weights": False} if name == "googlenet" else {}
        return models.get_model(name, weights=None, **options).eval()  # type: ignore[no-any-return]
    import timm

    return timm.create_model(name, pretrained=False, exportable=True).eval()  # type: ignore[no-any-return]


def pruned(name: str, ratio: float, multiple: int | None) -> nn.Module:
    """Some of its channels gone, by weight norms, which do not matter here."""
    import torch_pruning

    module = network(name)
    example = torch.zeros(1, 3, SIZE, SIZE)
    heads = [m for m in module.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    pruner = torch_pruning.pruner.MagnitudePruner(
        module, example, importance=torch_pruning.importance.MagnitudeImportance(), pruning_ratio=ratio,
        round_to=multiple, ignored_layers=heads,
    )  # fmt: skip
    pruner.step()
    return module


def written(module: nn.Module, path: Path) -> Path:
    """The network as an ONNX file."""
    torch.onnx.export(
        module, (torch.zeros(1, 3, SIZE, SIZE),), str(path), dynamo=False, opset_version=17, verbose=False
    )
    return path


@dataclass(frozen=True, kw_only=True)
class Job:
    """One network of the benchmark, in 32 and 8 bits or in 32 alone."""

    name: str
    family: str
    build: Callable[[], nn.Module]
    in_8_bits: bool


def jobs(names: Sequence[str]) -> Iterator[Job]:
    """Originals first, then the pruned variants."""
    for name in names:
        yield Job(name=name, family=name, build=lambda name=name: network(name), in_8_bits=True)  # type: ignore[misc]
    for name in (n for n in PRUNED if n in names):
        for ratio, multiple in RATIOS:
            told = f"{name} -{ratio:.0%}{'' if multiple is None else f', multiples of {multiple}'}"
            yield Job(
                name=told, family=name, in_8_bits=False,
                build=lambda name=name, r=ratio, m=multiple: pruned(name, r, m),  # type: ignore[misc]
            )  # fmt: skip


def calibrated(folder: Path) -> TargetProfile:
    """This host, calibrated once; one of the files and its time are kept, to measure others by."""
    path = folder / PROFILE
    if not path.exists():

        def measure(files: Sequence[Path], threads: int) -> Sequence[NetworkTime | None]:
            times = measure_here(files, threads)
            if threads == 1:
                spent = [(t.time_ms, file) for t, file in zip(times, files, strict=True) if t is not None]
                middle, file = sorted(spent)[len(spent) // 4]
                shutil.copy(file, folder / YARDSTICK)
                (folder / YARDSTICK_MS).write_text(json.dumps(middle))
            return times

        path.write_text(to_toml(calibrate("this-host", ThisHost(measure=measure))), encoding="utf-8")
    return load_target(str(path))


def measured(job: Job, profile: TargetProfile, folder: Path) -> list[dict[str, Any]]:
    """Predicted before it is measured."""
    rows = []
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    yardstick_ms = json.loads((folder / YARDSTICK_MS).read_text())
    path = written(job.build(), scratch / "model.onnx")
    files = [(32, path)]
    if job.in_8_bits:
        files.append((8, quantized_with_random_images(path, scratch / "int8.onnx", signed=False)))
    for bits, file in files:
        found = predict(file, profile, threads=1)
        ratios = [ratio_to(open_runner(folder / YARDSTICK, threads=1), file)[0] for _ in range(ROUNDS)]
        spent = statistics.median(ratios) * yardstick_ms
        rows.append(
            {
                "name": job.name, "family": job.family, "bits": bits, "predicted_ms": found.latency_ms,
                "low_ms": found.low_ms, "high_ms": found.high_ms, "measured_ms": spent,
                "lowest_ms": min(ratios) * yardstick_ms, "highest_ms": max(ratios) * yardstick_ms,
                "notes": list(found.notes),
                "kinds": [[k.kind, k.in_8_bits, round(k.latency_ms, 4)] for k in found.kinds],
            }
        )  # fmt: skip
    return rows


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-a of two lists."""
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    return float(np.mean([np.sign(first[i] - first[j]) * np.sign(second[i] - second[j]) for i, j in pairs]))


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A row a network."""
    return [
        "| network | bits | predicted ms | band | measured ms | predicted / measured |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['name']} | {r['bits']} | {r['predicted_ms']:.2f} | {r['low_ms']:.2f} to "
            f"{r['high_ms']:.2f} | {r['measured_ms']:.2f} | {r['predicted_ms'] / r['measured_ms']:.2f} |"
            for r in rows
        ),
    ]


def render(
    rows: Sequence[dict[str, Any]],
    looked_at: Sequence[dict[str, Any]],
    profile: TargetProfile,
    failed: Sequence[str],
) -> str:
    """The page below its header."""
    calibration = profile.calibration
    assert calibration is not None
    lines = [
        "This host was calibrated by `edgeprune targets calibrate --host`: "
        f"{calibration.measurements} networks of {calibration.nodes} nodes measured "
        f"in {calibration.measured_s:.0f} s. Then networks with random weights, none of them in the grid, "
        "were predicted and measured: CPU time of one thread, in turns with one of the calibration's files "
        "(the median of five rounds of new sessions), times what that file took in the calibration.",
        "",
        "| what | aimed at | networks in 32 bits | networks in 8 bits | pruned, 32 bits |",
        "|---|---|---|---|---|",
    ]
    groups = [
        [r for r in rows if r["bits"] == bits and (r["name"] != r["family"]) == cut]
        for bits, cut in ((32, False), (8, False), (32, True))
    ]
    errors = [np.array([abs(r["predicted_ms"] / r["measured_ms"] - 1) for r in group]) for group in groups]

    def line(what: str, aim: str, value: Callable[[int], str]) -> str:
        return f"| {what} | {aim} | {' | '.join(value(g) if len(errors[g]) else '-' for g in range(3))} |"

    def inside(group: int) -> str:
        held = [r["low_ms"] <= r["measured_ms"] <= r["high_ms"] for r in groups[group]]
        return f"{100 * np.mean(held):.0f}%"

    def tau(group: int) -> str:
        if group != 2:
            return "-"
        found = [
            kendall(
                *zip(
                    *[(r["predicted_ms"], r["measured_ms"]) for r in groups[2] if r["family"] == family],
                    strict=True,
                )
            )
            for family in dict.fromkeys(r["family"] for r in groups[2])
        ]
        return f"{min(found):.2f} to {max(found):.2f}"

    lines += [
        line("models", "at least 20", lambda g: str(len(groups[g]))),
        line("median error", "5%", lambda g: f"{100 * np.median(errors[g]):.1f}%"),
        line("95% of errors", "10%", lambda g: f"{100 * np.quantile(errors[g], 0.95):.1f}%"),
        line("worst", "30%", lambda g: f"{100 * errors[g].max():.1f}%"),
        line("inside the band", "90%", inside),
        line("Kendall tau within a family", "at least .9", tau),
        "",
        *table(rows),
        "",
        *([f"Not measured: {', '.join(failed)}.", ""] if failed else []),
        "The form of the tables (blocks one after another, what a node has, the profiler's own time) was "
        "chosen with these, which are not judged above:",
        "",
        *table(looked_at),
        "",
    ]
    return "\n".join(lines)


def measured_all(
    names: Sequence[str], profile: TargetProfile, folder: Path, deadline: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of these networks, kept in ``folder``, and what could not be measured."""
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for job in jobs(names):
        kept = folder / f"{''.join(c if c.isalnum() or c in '._' else '-' for c in job.name)}.json"
        if not kept.exists():
            if time.monotonic() > deadline:
                failed.append(f"{job.name} (no time left)")
                continue
            try:
                keep(kept, {"rows": measured(job, profile, folder)})
            except Exception as error:
                failed.append(f"{job.name} ({type(error).__name__})")
                print(f"{job.name}: {error}", file=sys.stderr, flush=True)
                continue
        own = json.loads(kept.read_text())["rows"]
        rows += own
        for row in own:
            shown = {key: row[key] for key in ("name", "bits", "predicted_ms", "measured_ms")}
            print(json.dumps(shown), row["predicted_ms"] / row["measured_ms"], flush=True)
    return rows, failed


def main() -> int:
    """Calibrate, predict, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="keeps the profile and one JSON a network")
    parser.add_argument("--limit-minutes", type=float, default=math.inf)
    parser.add_argument("--looked-at", action="store_true", help="only networks that forms are chosen with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * options.limit_minutes
    with folder_or_scratch(options.results) as folder:
        profile = calibrated(folder)
        looked_at, _ = measured_all(LOOKED_AT, profile, folder, deadline)
        if options.looked_at:
            return 0
        rows, failed = measured_all((*TORCHVISION, *TIMM, *LARGE), profile, folder, deadline)
        command = "python tests/benchmarks/latency_calibrated.py"
        made_by = header("Latency predicted after calibration", command, "0", 1, commits(folder))
        write_result("latency-calibrated.md", made_by + render(rows, looked_at, profile, failed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
