"""A device with other instructions than its target is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.devices.instruction_sets import cautioned, other_instructions
from edgeprune.devices.protocol import Machine, MeasurementResult
from edgeprune.devices.recorded import distrust
from edgeprune.targets import load_target

MACHINE = Machine(
    platform="", python="3.11.2", numpy="2.4", onnxruntime="1.31", cpu_name=None, cores_usable=4,
    memory_bytes=None, governor=None, clock_khz_before=None, clock_khz_after=None,
    temperature_c_before=None, temperature_c_after=None, throttled_flags=None, load_average=None,
)  # fmt: skip
ARM = (
    "Linux-6.12.25+rpt-rpi-v8-aarch64-with-glibc2.36",
    "Linux-5.10.198-armv7l-with-glibc2.31",
    "macOS-15.1-arm64-arm-64bit",
)
X86 = ("Linux-6.8.0-45-generic-x86_64-with-glibc2.39", "Windows-11-10.0.22631-AMD64", "Linux-5.4-i686")
UNTOLD = ("", "Linux-6.1-riscv64", "Linux-6.1-marmot-build", "Linux-6.1-amd64x-kernel")


@pytest.mark.parametrize("platform", [*ARM, *X86, *UNTOLD])
@pytest.mark.parametrize("target", ["rpi4", "rpi5", "jetson-nano", "n100"])
def test_only_the_other_family_is_told(platform: str, target: str) -> None:
    profile = load_target(target)
    found = other_instructions(profile, replace(MACHINE, platform=platform))
    fits = platform in (X86 if target == "n100" else ARM) or platform in UNTOLD
    assert (found is None) is fits
    if found is not None:
        assert target in found
        assert str(profile.isa) in found


def test_a_target_of_unknown_instructions_fits_all() -> None:
    profile = replace(load_target("rpi4"), isa=None)
    assert other_instructions(profile, replace(MACHINE, platform=X86[0])) is None


def test_figures_of_another_processor_are_not_to_be_trusted() -> None:
    result = MeasurementResult(
        machine=replace(MACHINE, platform=X86[0]), threads=1, batch_size=1, files={}, models={}, pairs=(),
        noise=None, cautions=("busy",),
    )  # fmt: skip
    told = distrust(cautioned(result, load_target("rpi4")))
    assert told[0] == "busy"
    assert "x86_64" in told[1]
    assert cautioned(result, None) == result == cautioned(result, load_target("n100"))
