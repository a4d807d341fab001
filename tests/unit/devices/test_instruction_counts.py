"""Counts of instructions by class: which class an encoding has, and what is read and told."""

from __future__ import annotations

import shutil
import stat
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.artifacts.latency import InstructionCounts
from edgeprune.devices.emulation.counting import counting_plugin, per_run, read_counts
from edgeprune.errors import DeviceError

ENCODINGS = {
    "float_multiply_add": {
        "fmla v0.4s, v1.4s, v2.4s": 0x4E22CC20, "fmla v7.2d, v31.2d, v2.2d": 0x4E62CFE7,
        "fmls v0.4s, v1.4s, v2.4s": 0x4EA2CC20, "fmla v0.8h, v1.8h, v2.8h": 0x4E420C20,
        "fmla v16.4s, v1.4s, v7.s[3]": 0x4FA71830, "fmls v16.2d, v1.2d, v17.d[1]": 0x4FD15830,
        "fmla v16.4h, v1.4h, v7.h[5]": 0x0F171830, "fmadd s0, s1, s2, s3": 0x1F020C20,
        "fnmsub d0, d1, d2, d3": 0x1F628C20, "fmla s0, s1, v2.s[1]": 0x5FA21020,
    },
    "dot_product": {
        "sdot v0.4s, v1.16b, v2.16b": 0x4E829420, "udot v0.2s, v1.8b, v2.8b": 0x2E829420,
        "sdot v0.4s, v1.16b, v2.4b[3]": 0x4FA2E820, "udot v16.4s, v17.16b, v30.4b[1]": 0x6FBEE230,
        "usdot v0.4s, v1.16b, v2.16b": 0x4E829C20, "usdot v0.4s, v1.16b, v2.4b[2]": 0x4F82F820,
        "sudot v0.4s, v1.16b, v2.4b[2]": 0x4F02F820, "smmla v0.4s, v1.16b, v2.16b": 0x4E82A420,
        "ummla v0.4s, v1.16b, v2.16b": 0x6E82A420, "usmmla v0.4s, v1.16b, v2.16b": 0x4E82AC20,
    },
    "widening_multiply": {
        "smlal v0.4s, v1.4h, v2.4h": 0x0E628020, "smlal2 v0.4s, v1.8h, v2.8h": 0x4E628020,
        "umlal v0.8h, v1.8b, v2.8b": 0x2E228020, "smlsl v0.8h, v1.8b, v2.8b": 0x0E22A020,
        "smull v0.8h, v1.8b, v2.8b": 0x0E22C020, "umull2 v0.8h, v1.16b, v2.16b": 0x6E22C020,
        "smlal v0.4s, v1.4h, v2.h[3]": 0x0F722020, "umlal2 v0.4s, v1.8h, v2.h[7]": 0x6F722820,
        "smlsl v0.4s, v1.4h, v2.h[3]": 0x0F726020, "smull v0.4s, v1.4h, v2.h[3]": 0x0F72A020,
    },
    "other_vector": {
        "sqdmlal v0.4s, v1.4h, v2.4h": 0x0E629020, "sqdmulh v0.4s, v1.4s, v2.4s": 0x4EA2B420,
        "fmul v0.4s, v1.4s, v2.4s": 0x6E22DC20, "fmul v0.4s, v1.4s, v2.s[0]": 0x4F829020,
        "fadd v0.4s, v1.4s, v2.4s": 0x4E22D420, "mla v0.4s, v1.4s, v2.4s": 0x4EA29420,
        "sadalp v0.4s, v1.8h": 0x4E606820, "fmax v0.4s, v1.4s, v2.4s": 0x4E22F420,
        "dup v0.4s, w1": 0x4E040C20, "eor v0.16b, v1.16b, v2.16b": 0x6E221C20, "fmov s0, w1": 0x1E270020,
        "pmull v0.8h, v1.8b, v2.8b": 0x0E22E020, "saddl v0.8h, v1.8b, v2.8b": 0x0E220020,
        "addhn v0.8b, v1.8h, v2.8h": 0x0E224020, "sabal v0.8h, v1.8b, v2.8b": 0x0E225020,
    },
    "load_store": {
        "ldr q0, [x1]": 0x3DC00020, "ldp q0, q1, [x2], #32": 0xACC10440, "ld1r {v0.4s}, [x0]": 0x4D40C800,
        "st1 {v0.s}[1], [x0]": 0x0D009000, "stp x29, x30, [sp, #-16]!": 0xA9BF7BFD,
        "ldrb w0, [x1, x2]": 0x38626820, "ldxr x0, [x1]": 0xC85F7C20, "prfm pldl1keep, [x0]": 0xF9800000,
    },
    "branch": {
        "b": 0x14000000, "cbz x0": 0xB4000000, "ret": 0xD65F03C0, "blr x0": 0xD63F0000, "svc #0": 0xD4000001,
    },
    "integer": {
        "add x0, x1, x2": 0x8B020020, "subs x0, x1, #4": 0xF1001020, "madd x0, x1, x2, x3": 0x9B020C20,
        "smull x0, w1, w2": 0x9B227C20, "mov x0, #1": 0xD2800020, "adrp x0": 0x90000000,
        "csel x0, x1, x2, eq": 0x9A820020, "lsl w0, w1, w2": 0x1AC22020,
    },
}  # fmt: skip
"""Of the assembler of LLVM."""
DRIVER = """
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id a, void (*b)(plugin_id, struct qemu_plugin_tb *)) {}
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *a, void (*b)(unsigned, void *), int c, void *d) {}
void qemu_plugin_register_atexit_cb(plugin_id a, void (*b)(plugin_id, void *), void *c) {}
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *a) { return 0; }
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *a, size_t b) { return 0; }
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *a) { return 0; }
int main(void) {
    uint32_t code;
    while (scanf("%" SCNx32, &code) == 1) puts(NAMES[class_of(code)]);
}
"""
compiled = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@compiled
def test_every_encoding_has_its_class(tmp_path: Path) -> None:
    source = resources.files("edgeprune.devices.emulation").joinpath("counting.c").read_text()
    (tmp_path / "classes.c").write_text(source + DRIVER)
    command = ["cc", "-DAPI=1", "-o", str(tmp_path / "classes"), str(tmp_path / "classes.c")]
    subprocess.run(command, check=True, capture_output=True)
    wanted = [(name, text, code) for name, codes in ENCODINGS.items() for text, code in codes.items()]
    told = subprocess.run(
        [str(tmp_path / "classes")], input="\n".join(f"{code:x}" for *_, code in wanted), text=True,
        capture_output=True, check=True,
    ).stdout.split()  # fmt: skip
    assert [(text, name) for name, text, _ in wanted] == [
        (text, name) for (_, text, _), name in zip(wanted, told, strict=True)
    ]


def test_the_classes_are_those_of_the_plugin() -> None:
    assert set(ENCODINGS) == set(InstructionCounts.names())


counts = st.builds(InstructionCounts, **dict.fromkeys(InstructionCounts.names(), st.integers(0, 10**12)))


@given(counts, counts, st.integers(1, 50))
def test_what_both_programs_do_is_not_of_a_run(
    start: InstructionCounts, run: InstructionCounts, runs: int
) -> None:
    def plus(times: int) -> InstructionCounts:
        return InstructionCounts(
            **{name: getattr(start, name) + times * getattr(run, name) for name in InstructionCounts.names()}
        )

    assert per_run(plus(1), plus(1 + runs), runs) == run


def test_counts_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    path.write_text("".join(f"{name} {place}\n" for place, name in enumerate(InstructionCounts.names())))
    found = read_counts(path)
    assert found.total == sum(range(7))
    assert found.integer == 6


@pytest.mark.parametrize(
    "text", [None, "", "float_multiply_add 3\n", "x 1\n", "integer many\n", "integer 1 2\n"]
)
def test_other_texts_are_no_counts(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "counts"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DeviceError, match="its version may not fit the plugin"):
        read_counts(path)


def program(folder: Path, name: str, text: str) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="apt install gcc libc6-dev"):
        counting_plugin("qemu-aarch64")


@compiled
@pytest.mark.parametrize(
    ("version", "interface"),
    [("7.2.22", 1), ("9.0.0", 2), ("9.2.1", 3), ("10.0.2", 4), ("10.1.0", 5), ("11.0.0", 6)],
)
def test_the_plugin_is_compiled_once_for_the_interface_of_qemu(
    version: str, interface: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    qemu = program(tmp_path / "bin", "qemu", f"echo 'qemu-aarch64 version {version} (Debian)'")
    path = counting_plugin(qemu)
    assert path.name.startswith(f"counting-{interface}-")
    written = path.stat().st_mtime_ns
    assert counting_plugin(qemu) == path
    assert path.stat().st_mtime_ns == written
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@compiled
@pytest.mark.parametrize("said", ["echo 'qemu-aarch64 version 4.1.0'", "echo hello", "exit 1"])
def test_a_qemu_without_plugins_is_told(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DeviceError, match=r"no version from 4\.2 on"):
        counting_plugin(program(tmp_path / "bin", "qemu", said))


@compiled
def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    qemu = program(tmp_path / "bin", "qemu", "echo 'version 7.2.0'")
    program(tmp_path / "bin", "cc", "echo 'stdio.h: no such file' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(DeviceError, match=r"cannot be compiled \(stdio.h: no such file\)"):
        counting_plugin(qemu)
    assert list((tmp_path / "cache").rglob("*.so")) == []
