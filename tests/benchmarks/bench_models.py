"""Networks that people bring: cut by a quarter and put in 8 bits, with random weights where none can be had.

Run as ``python tests/benchmarks/bench_models.py --results FOLDER``; writes a page a part,
``docs/benchmarks/models-PART.md``: ``networks`` of random weights, ``shipped`` (nudenet, rapidocr) and
``faces`` (MTCNN) with the weights of their packages, which have to be on ``PYTHONPATH``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import models_faces
import models_imported
import models_networks as networks
import models_shipped
import numpy as np
import torch
from common import Jobs, NotMeasuredError, Part, run_parts
from imagenet_data import no_images, read_images

HERE = Path(__file__).resolve().parent
IMAGES = 64
SIZE = 224
NETWORKS = (
    *(*networks.YOLO, *networks.TIMM, *networks.SEGMENTATION),
    *(*networks.UNET, *networks.SSD, *networks.TRANSFORMERS),
)
TIMEOUT_S = 1800
_ENDED = 124

Row = dict[str, Any]


def jobs(_folder: Path, _seeds: int, threads: int) -> Jobs:
    """One job a network."""
    return {name: lambda work, n=name: measured(n, work, threads) for name in NETWORKS}


def measured(name: str, work: Path, threads: int) -> Row:
    """Both commands on one network.

    Raises:
        NotMeasuredError: the package that has it is missing.
    """
    try:
        network = getattr(networks, name)()
    except ImportError as error:
        raise NotMeasuredError(str(error)) from error
    torch.save(network.state_dict(), work / "weights.pt")
    images, _ = read_images("imagenet_calibration_500.zip", SIZE, IMAGES)
    np.savez(work / "images.npz", images=images.numpy())
    common = (
        "--calibration",
        str(work / "images.npz"),
        "--threads",
        str(threads),
    )
    arch = f"{HERE / 'models_networks.py'}:{name}"
    row: Row = {"network": name}
    row |= _command(
        "compress",
        (str(work / "weights.pt"), "--arch", arch, *common, "--ratio", "0.25", "--effort", "quick"),
        work / "out",
    )
    if row["compress"] == 0:
        report = json.loads((work / "out" / "report.json").read_text())
        pruning, usability = report["pruning"], report["usability"]
        row["macs_removed"] = pruning["macs_removed_share"]
        row["parity"] = max(figure["relative_error"] for figure in report["parity"])
        row["loss"] = usability["loss"]
        row["channels"] = usability["by_channel"]
        row |= _command("quantize", (str(work / "out" / "model.onnx"), *common, "--json"), work / "int8.onnx")
        if row["quantize"] == 0:
            sizes = [(work / path).stat().st_size for path in ("int8.onnx", "out/model.onnx")]
            row["size"] = sizes[0] / sizes[1]
    return row


def _command(command: str, arguments: tuple[str, ...], output: Path) -> Row:
    """Status, seconds and, where it failed, the last words of a command."""
    began = time.perf_counter()
    try:
        run = subprocess.run(
            [sys.executable, "-m", "edgeprune", command, *arguments, "-o", str(output)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {command: _ENDED, f"{command}_s": TIMEOUT_S, f"{command}_said": "ended by the time limit"}
    row: Row = {command: run.returncode, f"{command}_s": time.perf_counter() - began}
    if run.returncode:
        row[f"{command}_said"] = run.stderr.strip().splitlines()[-1][:300]
    return row


def render(rows: list[Row]) -> str:
    """The table, and what was said where a command did not end in status 0."""
    text = (
        f"Random weights (seed 0), {IMAGES} photographs at 224 pixels, `--ratio 0.25 --effort quick`, then\n"
        "`quantize` of the result. *parity*: largest relative error between neighbours in the chain of\n"
        "models, which says that every conversion computes the same; of random weights accuracy says\n"
        "nothing.\n\n"
        "| network | compress | s | MACs removed | parity | quantize | s | size |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        text += (
            f"| {row['network']} | {_status(row, 'compress')} | {row['compress_s']:.0f} "
            f"| {_share(row, 'macs_removed')} | {_number(row, 'parity')} | {_status(row, 'quantize')} "
            f"| {row.get('quantize_s', float('nan')):.0f} | {_number(row, 'size')} |\n"
        )
    said = [(row["network"], row[key]) for row in rows for key in row if key.endswith("_said")]
    return text + "".join(f"\n- {network}: {words}" for network, words in said) + "\n"


def _status(row: Row, command: str) -> str:
    return "" if command not in row else "done" if row[command] == 0 else f"status {row[command]}"


def _share(row: Row, key: str) -> str:
    return f"{row[key]:.1%}" if key in row else ""


def _number(row: Row, key: str) -> str:
    return f"{row[key]:.2g}" if key in row else ""


def main() -> None:
    """Read the option of this benchmark, and run."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--photographs", type=Path, help="a folder of further photographs with faces, to judge")
    asked, _ = own.parse_known_args()
    parts = {
        "networks": Part(title="Networks that people bring", jobs=jobs, render=render, lacks=no_images),
        "shipped": Part(
            title="Detectors and text readers with their own weights",
            jobs=models_shipped.jobs, render=models_shipped.render, lacks=no_images,
        ),
        "imported": Part(
            title="Exported classifiers and shipped files that come back",
            jobs=models_imported.jobs, render=models_imported.render,
        ),
        "faces": Part(
            title="MTCNN: face boxes of cut networks",
            jobs=lambda _folder, _seeds, threads: models_faces.jobs(threads, asked.photographs),
            render=models_faces.render, lacks=no_images,
        ),
    }  # fmt: skip
    run_parts("models", __doc__, parts, threads=1, options_of_its_own=own)


if __name__ == "__main__":
    main()
