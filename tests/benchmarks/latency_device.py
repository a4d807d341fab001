"""A search on a "device" that is not this host: a loopback ssh server with one core and a limit on memory.

Half of the latency is asked for; the file that is delivered is measured there again. Run by itself it prints
its lines; ``bench_latency.py`` puts them into ``docs/benchmarks/latency.md``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from common import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests"))
from loopback_sshd import Sshd, serving

from edgeprune.api import compress
from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.choices import Effort

Row = dict[str, Any]

HALF = 0.5
TOLERANCE = 0.05
CORE = 0
MEMORY_BYTES = 4 * 2**30
_DIGITS = REPOSITORY / "examples" / "digits"
_LIMITS = f"taskset -cp {CORE} $$ >/dev/null; prlimit --pid $$ --as={MEMORY_BYTES}"


def half_on_a_device(work: Path) -> Row:
    """Compress the digits network to half of its latency on the device; what it takes there in the end."""
    with serving(work / "device", before=_LIMITS) as sshd:
        report = _compressed(sshd, work / "out")
        left = [str(path) for path in sshd.left_over()]
    search, ratio = report.budget, report.deployment.latency_ratio
    assert search is not None
    assert ratio is not None
    chosen = next(c for c in search.candidates if c.name == search.chosen)
    return {
        "network": "digits",
        "asked": HALF,
        "in_search": chosen.latency_share,
        "measured": [ratio.low, ratio.ratio, ratio.high],
        "provenance": ratio.provenance.value,
        "machine": report.deployment.compressed.latency.machine,
        "seconds": sum(stage.duration_s for stage in report.stage_times),
        "candidates": len(search.candidates),
        "left_over": left,
    }


def _compressed(sshd: Sshd, output: Path) -> Any:
    return compress(
        str(_DIGITS / "digits_net.safetensors"),
        arch=f"{_DIGITS / 'model.py'}:digits_net",
        calibration=REPOSITORY / "calibration" / "digits.npz",
        budget=Budget(max_latency_share=HALF),
        target="host",
        device=sshd.options,
        effort=Effort.QUICK,
        threads=1,
        output=output,
    )


def render(row: Row) -> str:
    """Lines of the page."""
    low, middle, high = row["measured"]
    holds = abs(middle / row["asked"] - 1) <= TOLERANCE
    return (
        f"Asked of `{row['network']}` on a device over ssh (loopback, core {CORE} alone, "
        f"{MEMORY_BYTES / 2**30:.0f} GiB of address space): {row['asked']:.0%} of its CPU time. Chosen among "
        f"{row['candidates']} candidates at {row['in_search']:.1%} in the search, measured there "
        "again on the "
        f"delivered file: **{middle:.1%}** [{low:.1%}, {high:.1%}] ({row['provenance']}), "
        f"{middle / row['asked'] - 1:+.1%} from what was asked ({'within' if holds else 'NOT within'} "
        f"{TOLERANCE:.0%}); {row['seconds']:.0f} s; {len(row['left_over'])} files left there.\n\n"
        f"{row['machine']}\n"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(render(half_on_a_device(Path(scratch))))
