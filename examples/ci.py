"""A step of a pipeline: compress, then let the gate decide: python examples/ci.py [FOLDER]

`edgeprune check` ends with status 0 (pass), 1 (fail), 2 (error) or 3 (inconclusive), and this script with it.
The network is so small that its size and agreement decide; docs/ci.md has limits of latency, too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from small_networks import save_striped_images, trained_classifier

BUDGET = """\
max_size_bytes = "60 kB"
max_size_ratio = 0.9
min_agreement = 0.8
"""


def edgeprune(*arguments: str | Path) -> int:
    command = [sys.executable, "-m", "edgeprune", *map(str, arguments)]
    return subprocess.run(command, check=False).returncode


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(trained_classifier().state_dict(), folder / "classifier.pt")
    (folder / "budget.toml").write_text(BUDGET, encoding="utf-8")
    architecture = Path(__file__).with_name("small_networks.py")
    status = edgeprune(
        *("compress", folder / "classifier.pt", "--arch", f"{architecture}:classifier"),
        *("--calibration", save_striped_images(folder), "--target", "rpi4", "--ratio", "0.3"),
        *("--effort", "quick", "--threads", "1", "-o", folder / "compressed", "--overwrite", "-q"),
    )
    if status != 0:
        return status
    return edgeprune(
        *("check", folder / "compressed", "--budget", folder / "budget.toml"),
        *("--junit", folder / "gate.xml", "--summary", folder / "summary.md"),
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-out/ci")))
