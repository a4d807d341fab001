"""ResNet-20 on CIFAR-10 through the whole pipeline: 1,000 unlabelled images, no training, whole test set.

Run as ``python tests/benchmarks/bench_resnet20.py``; writes ``docs/benchmarks/resnet20.md``.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import header, research_data, write_result

import edgeprune
from edgeprune.artifacts.report import RunReport
from edgeprune.options.cards import load_card

CALIBRATION_IMAGES = 1_000
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Row:
    """One compressed network."""

    setting: str
    seed: int
    report: RunReport
    accuracy: float


def main() -> None:
    """Compress with every setting and seed, judge each ONNX file on the whole test set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    data = research_data()
    torch.set_num_threads(options.threads)
    settings = [
        ("25%, any width", {"ratio": 0.25, "width_quantum": 1}),
        ("25%, widths for rpi4", {"ratio": 0.25, "target": "rpi4"}),
        ("25%, widths for this host", {"ratio": 0.25}),
        ("50%, any width", {"ratio": 0.5, "width_quantum": 1}),
    ]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        calibration = Path(scratch) / "unlabelled.npz"
        with np.load(data / "cifar10_train_10k.npz") as train:
            np.savez(calibration, images=train["images"][:CALIBRATION_IMAGES])
        images, labels = test_set(data)
        for number, (name, setting) in enumerate(settings):
            for seed in range(options.seeds):
                output = Path(scratch) / f"out-{number}-{seed}"
                report = edgeprune.compress(
                    data / "resnet20_cifar10.safetensors",
                    arch=f"{HERE / 'resnet20.py'}:resnet20",
                    calibration=calibration,
                    preprocessing=load_card("cifar10"),
                    held_out=0.0625,
                    output=output,
                    seed=seed,
                    threads=options.threads,
                    **setting,
                )
                accuracy = top1(output / "model.onnx", images, labels)
                rows.append(Row(name, seed, report, accuracy))
                print(f"{name}, seed {seed}: {accuracy:.2%}", flush=True)
    base = baseline(data, images, labels)
    write_result("resnet20.md", render(rows, base, options.seeds, options.threads))


def test_set(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 preprocessed test images and their labels."""
    with np.load(data / "cifar10_test.npz") as test:
        images, labels = test["images"], test["labels"]
    mean = np.array([0.485, 0.456, 0.406], dtype=np.float32)
    std = np.array([0.229, 0.224, 0.225], dtype=np.float32)
    scaled = (images.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)), labels


def top1(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of an ONNX file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    hits = sum(
        int((session.run(None, {name: images[i : i + 500]})[0].argmax(1) == labels[i : i + 500]).sum())
        for i in range(0, len(images), 500)
    )
    return hits / len(images)


def baseline(data: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of the original network in torch."""
    from resnet20 import resnet20
    from safetensors.torch import load_file

    network = resnet20()
    network.load_state_dict(load_file(data / "resnet20_cifar10.safetensors"))
    network.eval()
    hits = 0
    with torch.no_grad():
        for i in range(0, len(images), 500):
            found = network(torch.from_numpy(images[i : i + 500])).argmax(1).numpy()
            hits += int((found == labels[i : i + 500]).sum())
    return hits / len(images)


def render(rows: list[Row], base: float, seeds: int, threads: int) -> str:
    """The result file."""
    text = header(
        "ResNet-20, CIFAR-10: pruned without labels and without training",
        "python tests/benchmarks/bench_resnet20.py",
        ", ".join(str(s) for s in range(seeds)),
        threads,
    )
    text += (
        f"{CALIBRATION_IMAGES:,} unlabelled training images (1 in 16 kept back), original accuracy\n"
        f"{base:.2%} on the whole test set of 10,000 images. Accuracy is that of the final ONNX file in\n"
        "onnxruntime. The CPU-time ratio (compressed over original, interleaved pairs, 95% interval) and\n"
        "all durations were measured on this host.\n\n"
        "| setting | seed | MACs removed | accuracy | size | CPU-time ratio | rank | recover |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        times = {t.stage: t.duration_s for t in row.report.stage_times}
        found = row.report.deployment
        removed = row.report.pruning.macs_removed_share
        ratio = found.latency_ratio
        assert ratio is not None
        text += (
            f"| {row.setting} | {row.seed} | {removed:.1%} | {row.accuracy:.2%} "
            f"| {found.compressed.size_bytes / found.original.size_bytes:.3f} "
            f"| {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] "
            f"| {times['rank']:.1f} s | {times['recover']:.1f} s |\n"
        )
    return text


if __name__ == "__main__":
    main()
