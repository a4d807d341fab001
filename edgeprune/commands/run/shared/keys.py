"""What decides results that runs share."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError

from edgeprune.accelerator import in_words
from edgeprune.caching.store import DamagedEntryError, Store
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.errors import ModelLoadError
from edgeprune.storage.documents import UnreadableError

_log = logging.getLogger("edgeprune.commands")


_OF_TORCH = frozenset({"aten", "prims", "higher_order", "torchvision", "quantized_decomposed"})
"""Namespaces of operators whose code changes with a version that is part of every key."""


def shared_store(run: Run, prepared: Prepared) -> Store | None:
    """The cache of a run; ``None`` without one, and where code that nobody hashes decides what is computed.

    That is an operator of another package or of the user's own.
    """
    if run.cache is None:
        return None
    called = [n.target for n in prepared.captured.graph_module.graph.nodes if n.op == "call_function"]
    namespaces = {str(getattr(target, "namespace", "aten")) for target in called}
    if foreign := namespaces - _OF_TORCH:
        _log.info("nothing is shared: the network has operators of %s", ", ".join(sorted(foreign)))
        return None
    return run.cache


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


@contextmanager
def reading(names: str) -> Iterator[None]:
    """Whatever files of an entry that are not as they were written raise, as the damage of that entry."""
    try:
        yield
    except (
        ModelLoadError,
        UnreadableError,
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
    ) as error:
        raise DamagedEntryError(f"{names}: {error}") from error


def sha256_of(value: Any) -> str:
    """Hash of plain values."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
