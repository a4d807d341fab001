"""Valid tiny files of every input format, which the fuzzer changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import torch
from small_project import CHECKOUT, filled_once, fork_command, make_project, run_forked

MODEL = ("small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz")
"""With what the runs below begin, in the folder of the seeds."""
RATIO_RUN = ("--threads", "1", "--effort", "quick", "--target", "rpi4", "--ratio", "0.25")
SEARCH = (
    "--threads",
    "1",
    "--effort",
    "quick",
    "--target",
    "rpi4",
    "--max-size",
    "4100B",
    "--width-quantum",
    "1",
)
CONFIG = """\
calibration = "grey.npz"
target = "rpi4"
ratio = 0.25
arch = "nets.py:small"
input-shape = [1, 8, 8]
seed = 3
threads = 1

[preprocessing]
mean = [0.5]
std = [0.25]
channel-order = "rgb"
"""
BUDGET = """\
max_size_bytes = "4.5 kB"
max_size_ratio = 1.5
max_memory_bytes = "500 MiB"
min_agreement = 0.2
"""
SWEEP = """\
targets = ["rpi4"]
precisions = ["fp32"]

[[models]]
name = "small"
model = "small.pt"
arch = "nets.py:small"
calibration = "grey.npz"

[models.preprocessing]
mean = [0.5]
std = [0.25]

[[budgets]]
name = "quarter"
ratio = 0.25

[options]
effort = "quick"
threads = 1
seed = 3
pictures = false
"""
CARD = """\
name = "own"
description = "a card"
resize = 8
crop = 8
mean = [0.5]
std = [0.25]
channel_order = "rgb"
"""


def make_seeds(folder: Path) -> Path:
    """Fill ``folder`` once, whoever comes first."""
    return filled_once(folder, _fill)


def _fill(folder: Path) -> None:
    make_project(folder)
    torch.save(torch.load(folder / "small.pt"), folder / "old.pt", _use_new_zipfile_serialization=False)
    target = (CHECKOUT / "targets" / "rpi4.toml").read_text().replace('"rpi4"', '"own"')
    (folder / "target.toml").write_text(target)
    (folder / "card.toml").write_text(CARD)
    (folder / "budget.toml").write_text(BUDGET)
    (folder / "sweep.toml").write_text(SWEEP)
    (folder / "edgeprune.txt").write_text(CONFIG)  # under its own name every command would read it
    _made(
        folder,
        "rank",
        *MODEL,
        "--threads",
        "1",
        "--effort",
        "quick",
        "--criterion",
        "l1",
        "--criterion",
        "hybrid",
        "-o",
        "ranking",
    )
    _made(folder, "compress", *MODEL, *SEARCH, "-o", "search")
    shutil.copy(folder / "search" / "model.onnx", folder / "model.onnx")
    _made(folder, "sweep", "sweep.toml", "--max-parallel", "1", "--cache", "cache", "-o", "swept")
    _measured(folder)
    _stopped(folder, "compress", *MODEL, *RATIO_RUN, "-o", "stopped")


def _made(folder: Path, *arguments: str) -> None:
    done = run_forked(*arguments, cwd=folder, scratch=folder / "scratch")
    assert done.returncode == 0, done.stderr


def _measured(folder: Path) -> None:
    """Leaves ``result.json``, what a bundle with the model wrote here in few runs."""
    _made(folder, "bundle", "model.onnx", "--threads", "1", "-o", "bench.tar.gz")
    with tarfile.open(folder / "bench.tar.gz") as archive:
        archive.extractall(folder / "device", filter="data")
    (job,) = (folder / "device").rglob("job.json")
    told = json.loads(job.read_text()) | {
        "least_pairs": 10,
        "samples": 3,
        "warmup_limit_s": 0.1,
        "processes": 1,
    }
    job.write_text(json.dumps(told))
    variables = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
    subprocess.run(["sh", str(job.with_name("run.sh"))], env=variables, check=True, capture_output=True)
    shutil.copy(job.with_name("result.json"), folder / "result.json")


def _stopped(folder: Path, *arguments: str) -> None:
    """A run that is killed once its recovered network is on file; leaves ``stopped.journal``."""
    scratch = folder / "scratch"
    process = fork_command(
        *arguments, cwd=folder, scratch=scratch, streams=(scratch / "stdout", scratch / "stderr")
    )
    while process.is_alive() and not (folder / "stopped.journal" / "recovered.json").exists():
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
