"""What decides results that runs share."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edgeprune.accelerator import in_words
from edgeprune.commands.run.state import Prepared, Run


def decided_by(run: Run, prepared: Prepared) -> dict[str, str]:
    """What every shared result follows from, besides code and machine: network, images, and where it is made.

    Each stage adds what else decides it.
    """
    fitting = prepared.calibration.fitting
    groups = [(group.name, group.players) for group in prepared.coupling.groups]
    network, images = prepared.inputs_sha256
    return {
        "network": network,
        "images": images,
        "class scores": f"{fitting.class_scores} {fitting.joins}",
        "players": f"{run.options.coupling} {sha256_of(groups)}",
        "weights stored as": f"{prepared.stored_as}",
        "computed on": in_words(prepared.device),
        "threads": f"{run.threads}",
    }


def sha256_of(value: Any) -> str:
    """Hash of plain values."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
