"""The same files from one process, from one and two workers, and from a cluster of which a node is lost.

ResNet-20 on CIFAR-10, whose ranking takes long enough to be spread; ``tiny``: the digits example.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import REPOSITORY, Jobs, NotMeasuredError, ended, research_data

from edgeprune.commands.run.resume import journal_folder

Row = dict[str, Any]

DIGITS = REPOSITORY / "examples" / "digits"
MODEL = (
    str(DIGITS / "digits_net.safetensors"), "--arch", f"{DIGITS / 'model.py'}:digits_net",
    "--calibration", str(REPOSITORY / "calibration" / "digits.npz"),
)  # fmt: skip
FILES = ("surgery.json", "weights.safetensors")
WAYS: dict[str, tuple[str, ...]] = {
    "one process": (),
    "1 worker": ("--workers", "1"),
    "2 workers": ("--workers", "2"),
    "Ray, two nodes": ("--executor", "ray"),
    "Ray, a node lost half-way": ("--executor", "ray"),
}
_AGAIN = "is computed again"
_OF_THE_RANKING = 0.25
"""Share of the time of a ranking from its first checkpoint on, after which the node is lost."""
IMAGES = 1000


def jobs(folder: Path, *, tiny: bool) -> Jobs:
    """One compression by each way; the last one loses a node in the middle of its ranking."""
    return {name: lambda work, name=name: _measured(name, folder, work, tiny) for name in WAYS}


def _resnet20() -> tuple[str, ...]:
    data = research_data()
    return (
        str(data / "resnet20_cifar10.safetensors"),
        *("--arch", f"{REPOSITORY / 'tests' / 'benchmarks' / 'resnet20.py'}:resnet20"),
        *("--calibration", str(data / "cifar10_train_10k.npz"), "--max-images", str(IMAGES)),
        *("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"),
    )


def _measured(name: str, folder: Path, work: Path, tiny: bool) -> Row:
    is_ray = name.startswith("Ray")
    if is_ray and importlib.util.find_spec("ray") is None:
        raise NotMeasuredError("Ray is not installed")
    asked = [
        sys.executable, "-m", "edgeprune", "compress", *(MODEL if tiny else _resnet20()),
        "--ratio", "0.5", "--effort", "quick" if tiny else "normal", "--threads", "1",
        "--target", "rpi4", "--no-pictures", *WAYS[name], "-o", str(work / "out"),
    ]  # fmt: skip
    if is_ray:
        lost_after_s = _into_ranking(folder) if "lost" in name else 0.0
        asked = [sys.executable, __file__, str(work / "out"), str(lost_after_s), *asked]
    said = (work / "said").open("w+")
    with said:
        child = subprocess.Popen(asked, stderr=said, stdout=subprocess.DEVNULL, cwd=work)
        done = ended(child, time.perf_counter())
        said.seek(0)
        text = said.read()
    if done.status:
        raise RuntimeError(f"{name} ended with {done.status}: {text[-2000:]}")
    report = json.loads((work / "out" / "report.json").read_text())
    hashes = {file: hashlib.sha256((work / "out" / file).read_bytes()).hexdigest() for file in FILES}
    stages = {each["stage"]: each["duration_s"] for each in report["stage_times"]}
    return {
        "way": name,
        "hashes": hashes,
        "seconds": done.seconds,
        "cpu_seconds": done.cpu_seconds,
        "ranking_s": sum(seconds for stage, seconds in stages.items() if stage.startswith("rank")),
        "again": text.count(_AGAIN),
    }


def _into_ranking(folder: Path) -> float:
    """Seconds from the first checkpoint of the ranking on."""
    whole = folder / "Ray--two-nodes.json"
    if not whole.exists():
        raise NotMeasuredError("the run that loses no node comes first")
    return float(_OF_THE_RANKING * json.loads(whole.read_text())["ranking_s"])


def render(rows: list[Row]) -> str:
    """A table, and whether all files are the same."""
    same = len({json.dumps(row["hashes"], sort_keys=True) for row in rows}) == 1
    text = (
        "## The same bytes\n\n"
        f"ResNet-20 on CIFAR-10, {IMAGES:,} images, cut by half in rounds, one thread a process, by\n"
        "`compress`. *again*: batches that were computed a second time, since their worker was lost.\n"
        "*ranking*: wall-clock time of all rounds, with the start of workers and with what one process does\n"
        "for itself (statistics, eliminations, exact values of small groups). *CPU*: without nodes of Ray,\n"
        "which are no children of the run. All on two cores, nodes of Ray's test utility as well.\n\n"
        "| how | surgery.json | weights.safetensors | again | ranking | times as fast | whole run | CPU |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    one = next((row["ranking_s"] for row in rows if row["way"] == "one process"), None)
    for row in rows:
        faster = "" if one is None else f"{one / row['ranking_s']:.2f}"
        shown = " | ".join(f"`{row['hashes'][file][:12]}`" for file in FILES)
        text += (
            f"| {row['way']} | {shown} | {row['again']} | {row['ranking_s']:.1f} s "
            f"| {faster} | {row['seconds']:.1f} s "
            f"| {row['cpu_seconds']:.1f} s |\n"
        )
    return text + f"\nAll files of all ways are {'the same, byte for byte' if same else 'NOT THE SAME'}.\n"


def _on_cluster(output: Path, lost_after_s: float, command: list[str]) -> int:
    """Run a command on two nodes of Ray here, of which one is removed some time into the ranking."""
    import os

    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # nodes find what this process does
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        child = subprocess.Popen([*command, "--ray-address", cluster.address])
        while lost_after_s and child.poll() is None and not list(journal_folder(output).glob("*.npz")):
            time.sleep(0.05)
        if lost_after_s and child.poll() is None:
            time.sleep(lost_after_s)
            cluster.remove_node(second, allow_graceful=False)
        return child.wait()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(_on_cluster(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
