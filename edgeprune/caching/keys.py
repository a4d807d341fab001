"""What identifies a result: everything that decided it, as words, and the hash of them."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from edgeprune.system.host import read_host

_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = ("torch", "torchvision", "numpy", "onnx", "onnxruntime")


class Stage(StrEnum):
    """A stage whose results are shared; it is the folder of its entries."""

    STATISTICS = "statistics"
    RANKING = "ranking"
    RECOVERY = "recovery"
    CURVES = "curves"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A stage and all that decides its result, name -> words; :func:`surroundings` are added by itself."""

    stage: Stage
    decided_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, str]:
        """All that decides the result, with the versions and the machine."""
        return {**self.decided_by, **surroundings()}

    @property
    def digest(self) -> str:
        """SHA-256 of the stage and of all parts, in hexadecimal."""
        text = json.dumps({"stage": self.stage.value, "parts": self.parts}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def surroundings() -> dict[str, str]:
    """What decides the last digits of every result: code, libraries and the kind of processor."""
    host = read_host()
    versions = {f"version of {name}": metadata.version(name) for name in _LIBRARIES}
    return {
        "code of edgeprune": code_sha256(),
        "version of Python": platform.python_version(),
        **versions,
        "processor": f"{host.isa} {host.cpu_name}",
    }


@functools.cache
def code_sha256() -> str:
    """Hash of edgeprune's own modules, so that what another state of the code computed is not taken."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
