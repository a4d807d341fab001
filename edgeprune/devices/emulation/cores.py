"""Processor cores that qemu knows, and what Linux says of them.

Part numbers and features are those of Arm's technical reference manuals (MIDR_EL1) and of Linux's
``Documentation/arch/arm64/elf_hwcaps``; libraries choose their kernels by them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeprune.errors import UsageError
from edgeprune.targets import TargetProfile


@dataclass(frozen=True, kw_only=True)
class Core:
    """A core: its name for qemu, its part number and features in ``/proc/cpuinfo``."""

    name: str
    part: int
    features: str


_PLAIN = "fp asimd evtstrm crc32 cpuid"
_ARMV8_2 = f"{_PLAIN} atomics fphp asimdhp asimdrdm lrcpc asimddp"
CORES = {
    core.name: core
    for core in (
        Core(name="cortex-a53", part=0xD03, features=_PLAIN),
        Core(name="cortex-a57", part=0xD07, features=_PLAIN),
        Core(name="cortex-a72", part=0xD08, features=_PLAIN),
        Core(name="cortex-a76", part=0xD0B, features=_ARMV8_2),
    )
}
"""By name."""
_CORE = re.compile(r"Cortex-(A\d+)", re.IGNORECASE)


def core_of(target: TargetProfile) -> Core:
    """The core of a target.

    Raises:
        UsageError: it has none that can be emulated.
    """
    named = _CORE.search(target.cpu_name or "")
    name = f"cortex-{named[1].lower()}" if named else None
    if name not in CORES:
        raise UsageError(
            f"--emulate was given with --target {target.name}, whose processor is "
            f"{target.cpu_name or 'not known'}; accepted are targets with a core of {', '.join(CORES)}"
        )
    return CORES[name]


def cpuinfo(core: Core) -> str:
    """``/proc/cpuinfo`` of a board with one such core."""
    lines = {
        "processor": "0",
        "BogoMIPS": "108.00",
        "Features": core.features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": f"{core.part:#x}",
        "CPU revision": "0",
    }
    return "".join(f"{key}\t: {value}\n" for key, value in lines.items()) + "\n"
