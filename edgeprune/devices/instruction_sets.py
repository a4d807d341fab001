"""Whether what measured has the instruction set of the target that it stands for."""

from __future__ import annotations

import re
from dataclasses import replace

from edgeprune.devices.protocol import Machine, MeasurementResult
from edgeprune.targets import TargetProfile
from edgeprune.targets.profile import is_arm

_ARM = re.compile(r"(?:^|[-_. ])(?:aarch64|arm64|armv\d\w*)(?:$|[-_. ])", re.IGNORECASE)
_X86 = re.compile(r"(?:^|[-_. ])(?:x86[-_]64|amd64|i[3-6]86)(?:$|[-_. ])", re.IGNORECASE)


def other_instructions(target: TargetProfile, machine: Machine) -> str | None:
    """In words, where a machine has other instructions than the target; ``None`` where it has not.

    Nor where either does not tell. Its platform is as Python tells it, such as
    ``Linux-6.12.25+rpt-rpi-v8-aarch64-with-glibc2.36``.
    """
    if target.isa is None:
        return None
    found = (_X86 if is_arm(target.isa) else _ARM).search(machine.platform)
    if found is None:
        return None
    name = found.group().strip("-_. ")
    return f"it was measured on {name}, while the target {target.name} has {target.isa}"


def cautioned(result: MeasurementResult, target: TargetProfile | None) -> MeasurementResult:
    """The result, with a caution where what measured has other instructions than the target."""
    words = None if target is None else other_instructions(target, result.machine)
    return result if words is None else replace(result, cautions=(*result.cautions, words))
