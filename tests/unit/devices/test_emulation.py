"""Emulated cores: which targets have one, and what is said where qemu or its system cannot be had."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.artifacts.latency import InstructionCounts
from edgeprune.devices.emulation.cores import CORES, core_of, cpuinfo
from edgeprune.devices.emulation.running import QEMU, emulated_instructions, emulated_outputs
from edgeprune.devices.emulation.system_root import system_root
from edgeprune.errors import DeviceError, UsageError
from edgeprune.targets import list_targets, load_target


@pytest.mark.parametrize(
    ("target", "core"),
    [("rpi-zero2", "cortex-a53"), ("rpi3", "cortex-a53"), ("rpi4", "cortex-a72"), ("rpi5", "cortex-a76")],
)
def test_boards_have_their_core(target: str, core: str) -> None:
    profile = load_target(target)
    known = core_of(profile)
    assert known.name == core
    assert ("asimddp" in known.features) == profile.dot_product
    assert f"CPU part\t: {known.part:#x}\n" in cpuinfo(known)


def test_other_targets_say_which_cores_there_are() -> None:
    cores = {name for name in list_targets() if "Cortex-A" in (load_target(name).cpu_name or "")}
    for name in sorted(set(list_targets()) - cores):
        with pytest.raises(UsageError, match="accepted are targets with a core of cortex-a53"):
            core_of(load_target(name))


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path of our own, and a cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system root with nothing but the name of an interpreter."""
    folder = tmp_path / "root"
    (folder / "usr" / "bin").mkdir(parents=True)
    (folder / "usr" / "bin" / "python3.11").touch()
    monkeypatch.setattr("edgeprune.devices.emulation.running.system_root", lambda _: folder)
    return folder


def test_without_qemu(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="apt install qemu-user"):
        emulated_outputs(tmp_path / "m.onnx", "input", torch.zeros(1), CORES["cortex-a72"])


def test_without_a_distribution_that_has_packages(tools: Path) -> None:
    with pytest.raises(DeviceError, match="works on Debian and Ubuntu"):
        system_root(CORES["cortex-a72"])


def test_what_cannot_be_fetched_leaves_nothing(tools: Path, tmp_path: Path) -> None:
    program(tools, "apt-get", "echo 'E: no such mirror' >&2; exit 100")
    with pytest.raises(
        DeviceError, match=r"list of packages failed \(E: no such mirror\); check the network"
    ):
        system_root(CORES["cortex-a72"])
    assert list((tmp_path / "cache" / "edgeprune").iterdir()) == []


@pytest.mark.usefixtures("root")
def test_what_fails_there_is_told(tools: Path, tmp_path: Path) -> None:
    program(tools, QEMU, "echo 'qemu: uncaught target signal 4 (Illegal instruction)' >&2; exit 132")
    with pytest.raises(DeviceError, match=r"does not run on an emulated cortex-a53 \(qemu: .*Illegal"):
        emulated_outputs(tmp_path / "m.onnx", "input", torch.zeros(1), CORES["cortex-a53"])


def test_the_arguments_are_those_of_the_core(tools: Path, root: Path, tmp_path: Path) -> None:
    """A stand-in for qemu hands the inputs back: outputs keep their order, and the core is named."""
    answer = tmp_path / "answer.npz"
    np.savez(answer, output_0=np.arange(3.0), output_1=np.arange(2.0))
    program(tools, QEMU, f'echo "$@" > {tmp_path}/given; for last; do :; done; /bin/cp {answer} "$last"')
    outputs = emulated_outputs(tmp_path / "m.onnx", "input", torch.zeros(1), CORES["cortex-a76"])
    assert [len(o) for o in outputs] == [3, 2]
    assert (tmp_path / "given").read_text().startswith(f"-cpu cortex-a76 -L {root} {root}/usr/bin/python3.11")


@pytest.mark.usefixtures("root")
def test_instructions_are_of_the_runs_behind_the_first(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for qemu that counts 100 of every class with one run, and 28 more with four more."""
    monkeypatch.setattr("edgeprune.devices.emulation.running.counting_plugin", lambda _: tmp_path / "p.so")
    names = " ".join(InstructionCounts.names())
    lines = (
        f'out="${{4#{tmp_path}/p.so,out=}}"; [ -f {tmp_path}/first ] && n=128 || n=100; : > {tmp_path}/first',
        f'for name in {names}; do echo "$name $n"; done > "$out"',
    )
    program(tools, QEMU, "\n".join(lines))
    found = emulated_instructions(tmp_path / "m.onnx", "input", torch.zeros(1, 2), CORES["cortex-a76"])
    assert {getattr(found, name) for name in InstructionCounts.names()} == {28 // 4}
