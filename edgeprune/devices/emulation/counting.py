"""Instructions that a model retires on an emulated core, by class: a plugin of qemu counts them.

Counts follow from the program and its data, so that they repeat; time under emulation says
nothing of a board's.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

from edgeprune.artifacts.latency import InstructionCounts
from edgeprune.devices.connection import last_line
from edgeprune.devices.emulation.system_root import cache_folder, made_once
from edgeprune.errors import DeviceError

COMPILER = "cc"
_LIMIT_S = 120.0
_INTERFACES = ((10, 2, 6), (10, 1, 5), (10, 0, 4), (9, 1, 3), (9, 0, 2), (4, 2, 1))
"""Version of the plugin interface from a version of qemu on."""


def counting_plugin(qemu: str) -> Path:
    """The plugin for this ``qemu``, compiled once into the user's cache.

    Raises:
        DeviceError: there is no C compiler, or qemu is too old or says no version.
    """
    if shutil.which(COMPILER) is None:
        raise DeviceError(
            f"instructions are counted by a plugin that needs a C compiler, and {COMPILER!r} is not "
            "installed; install one (Debian, Ubuntu: apt install gcc libc6-dev)"
        )
    interface = _interface(qemu)
    source = resources.files("edgeprune.devices.emulation").joinpath("counting.c").read_bytes()
    name = f"counting-{interface}-{hashlib.sha256(source).hexdigest()[:12]}"
    folder = cache_folder() / name
    made_once(folder, lambda made: _compile(source, interface, made / f"{name}.so"))
    return folder / f"{name}.so"


def _interface(qemu: str) -> int:
    done = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    found = re.search(r"version (\d+)\.(\d+)", done.stdout)
    version = (0, 0) if found is None else (int(found[1]), int(found[2]))
    known = next((number for major, minor, number in _INTERFACES if version >= (major, minor)), None)
    if known is None:
        raise DeviceError(
            f"{qemu!r} says no version from 4.2 on, which plugins need; install a newer qemu-user"
        )
    return known


def _compile(source: bytes, interface: int, made: Path) -> None:
    options = [f"-DAPI={interface}", "-O2", "-shared", "-fPIC", "-o", str(made), "-x", "c", "-"]
    done = subprocess.run(
        [COMPILER, *options], input=source, capture_output=True, timeout=_LIMIT_S, check=False
    )
    if done.returncode:
        reason = last_line(done.stderr.decode(errors="replace").splitlines())
        raise DeviceError(
            f"the plugin that counts instructions cannot be compiled ({reason}); install the C library's "
            "headers (Debian, Ubuntu: apt install libc6-dev)"
        )


def read_counts(path: Path) -> InstructionCounts:
    """What the plugin wrote.

    Raises:
        DeviceError: it wrote nothing, or something else.
    """
    try:
        pairs = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
        return InstructionCounts(**{name: int(count) for name, count in pairs})
    except (OSError, ValueError, TypeError) as error:
        raise DeviceError(
            f"qemu ended without counts of instructions ({error}); its version may not fit the plugin"
        ) from error


def per_run(few: InstructionCounts, many: InstructionCounts, runs: int) -> InstructionCounts:
    """Counts of one run, from those of two programs of which the second makes ``runs`` more.

    Starting Python and loading the model are in both.
    """
    each = {
        name: round((getattr(many, name) - getattr(few, name)) / runs) for name in InstructionCounts.names()
    }
    return InstructionCounts(**each)
