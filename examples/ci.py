"""A step of a pipeline, which fails if too much is lost: python examples/ci.py [FOLDER]

`edgeprune` ends with a status other than 0 where it could not do what was asked (docs/exit-statuses.md); what
is lost is in report.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from small_networks import save_striped_images, trained_classifier

MOST_LOST = 0.10
MOST_BYTES = 60_000


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(trained_classifier().state_dict(), folder / "classifier.pt")
    architecture = Path(__file__).with_name("small_networks.py")
    command = [
        *(sys.executable, "-m", "edgeprune", "compress", str(folder / "classifier.pt")),
        *("--arch", f"{architecture}:classifier", "--calibration", str(save_striped_images(folder))),
        *("--target", "rpi4", "--ratio", "0.3", "--effort", "quick", "--threads", "1"),
        *("-o", str(folder / "compressed"), "--overwrite", "-q"),
    ]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        return done.returncode
    report = json.loads((folder / "compressed" / "report.json").read_text(encoding="utf-8"))
    lost, size = report["usability"]["loss"], report["deployment"]["compressed"]["size_bytes"]
    print(
        f"{lost:.1%} of the answers lost (at most {MOST_LOST:.0%}), {size:,} bytes (at most {MOST_BYTES:,})"
    )
    return 0 if lost <= MOST_LOST and size <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-out/ci")))
