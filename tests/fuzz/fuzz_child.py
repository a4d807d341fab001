"""What runs in the forked child itself; imports little, since every case pays for it."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path

from small_project import own_group

CPU_LIMIT_S = 60


def limited() -> None:
    """A group of its own, with an end to its processor time and no dump of its memory."""
    own_group()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["TERM"] = "xterm-256color"


def apply(arguments: Sequence[str]) -> int:
    """``apply_surgery`` as a command: the module of networks, recipe, weights, and what to check against."""
    from small_project import networks

    from edgeprune import apply_surgery
    from edgeprune.cli import entry
    from edgeprune.cli.process.session import Session

    def action() -> int:
        nets, recipe, weights, *check = arguments
        module = networks(Path(nets).parent).small().eval()
        apply_surgery(module, recipe, weights, check_against=check[0] if check else None)
        return 0

    return entry.guarded(action, Session())
