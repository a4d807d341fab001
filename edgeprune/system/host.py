"""Facts about the local machine from the operating system (Linux and macOS)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_NCHWC_REASON = (
    "onnxruntime's blocked convolution layout on x86-64 holds {block} channels with {isa} "
    "(MlasNchwcGetBlockSize); other widths are padded or fall back"
)
_NEON_REASON = (
    "a 128-bit vector holds 4 fp32 values, and onnxruntime's matrix kernel takes 4 output channels at once"
)
_UNKNOWN_REASON = (
    "the instruction set is unknown here, so the width of a 128-bit vector (4 fp32 values) is taken"
)


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """This machine; ``None`` if the OS does not report it. Cache sizes are totals over the processor."""

    cpu_name: str | None
    cores: int | None
    isa: str | None
    dot_product: bool | None
    fp16_arithmetic: bool | None
    simd_width_bits: int | None
    l2_cache_bytes: int | None
    l3_cache_bytes: int | None
    memory_bytes: int | None
    width_quantum: int
    width_quantum_reason: str


def read_host() -> HostFacts:
    """Facts about this machine, read now. Nothing is guessed: what cannot be read is ``None``."""
    flags = _cpu_flags()
    quantum, reason = width_quantum_for(flags)
    return HostFacts(
        cpu_name=_cpu_name(),
        cores=_cores(),
        isa=platform.machine() or None,
        dot_product=None
        if flags is None
        else bool(flags & {"asimddp", "avx512_vnni", "avx_vnni", "dotprod"}),
        fp16_arithmetic=None if flags is None else bool(flags & {"asimdhp", "avx512_fp16", "fp16"}),
        simd_width_bits=simd_width_bits_for(flags),
        l2_cache_bytes=_cache_bytes(2),
        l3_cache_bytes=_cache_bytes(3),
        memory_bytes=physical_memory_bytes(),
        width_quantum=quantum,
        width_quantum_reason=reason,
    )


def machine_description() -> str:
    """One line for a report: processor, cores, memory, operating system."""
    facts = read_host()
    cpu = facts.cpu_name or "unknown processor"
    cores = "unknown number of cores"
    if facts.cores:
        cores = "1 core" if facts.cores == 1 else f"{facts.cores} cores"
    memory = f"{facts.memory_bytes / 2**30:.1f} GiB" if facts.memory_bytes else "unknown memory"
    return f"{cpu} ({facts.isa or 'unknown instruction set'}), {cores}, {memory}, {platform.system()}"


def width_quantum_for(flags: frozenset[str] | None) -> tuple[int, str]:
    """Channels that widths should be a multiple of, and why, from the processor's feature flags."""
    if flags is None:
        return 4, _UNKNOWN_REASON
    if "avx512f" in flags:
        return 16, _NCHWC_REASON.format(block=16, isa="AVX-512")
    if "avx2" in flags or "avx" in flags:
        return 8, _NCHWC_REASON.format(block=8, isa="AVX")
    return 4, _NEON_REASON if "asimd" in flags else _UNKNOWN_REASON


def simd_width_bits_for(flags: frozenset[str] | None) -> int | None:
    """Width of the widest vector that fp32 kernels use, in bits, from the feature flags."""
    if flags is None:
        return None
    if "avx512f" in flags:
        return 512
    if "avx" in flags:
        return 256
    return 128 if flags & {"asimd", "sse2", "neon"} else None


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    entries: dict[str, str] = {}
    for key, value in pairs:
        entries.setdefault(key.strip().lower(), value.strip())
    return entries


def _sysctl(name: str) -> str | None:
    if sys.platform != "darwin":
        return None
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _cpu_name() -> str | None:
    info = _cpuinfo()
    board = Path("/proc/device-tree/model")
    if "model name" not in info and board.is_file():
        return board.read_text(encoding="utf-8", errors="replace").strip("\x00\n ") or None
    return info.get("model name") or _sysctl("machdep.cpu.brand_string")


def _cpu_flags() -> frozenset[str] | None:
    info = _cpuinfo()
    text = info.get("flags") or info.get("features")
    if text is not None:
        return frozenset(text.lower().split())
    if sys.platform == "darwin" and platform.machine() == "arm64":
        optional = {
            "dotprod": _sysctl("hw.optional.arm.FEAT_DotProd"),
            "fp16": _sysctl("hw.optional.arm.FEAT_FP16"),
        }
        return frozenset({"asimd"} | {flag for flag, value in optional.items() if value == "1"})
    features = " ".join(
        filter(None, (_sysctl("machdep.cpu.features"), _sysctl("machdep.cpu.leaf7_features")))
    )
    return frozenset(features.lower().replace("avx1.0", "avx").split()) or None


def physical_memory_bytes() -> int | None:
    """Memory of the machine, whatever a container's limit; ``None`` if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        given = _sysctl("hw.memsize")
        return int(given) if given else None


def _cache_bytes(level: int) -> int | None:
    """Total over the distinct caches of one level; 0 where the OS lists caches and has none of it."""
    caches: dict[tuple[str, str], int] = {}
    listed = False
    for index in sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*")):
        try:
            listed = True
            if int((index / "level").read_text()) != level:
                continue
            shared = (index / "shared_cpu_list").read_text().strip()
            caches[(index.name, shared)] = _size_bytes((index / "size").read_text().strip())
        except (OSError, ValueError):
            return None
    if listed:
        return sum(caches.values())
    given = _sysctl(f"hw.l{level}cachesize")
    return int(given) if given else None


def _size_bytes(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)
