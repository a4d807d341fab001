"""Device profiles: shipped ones by name, a user's own by path, and this host as detected.

A profile is data (``targets/*.toml``): every number has its unit in its name and its source in
``[sources]``. Peak arithmetic is derived here, never stored.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, IsFinite, Le, MultipleOf, Predicate

from edgeprune.artifacts.choices import HOST
from edgeprune.errors import TargetError
from edgeprune.showing import did_you_mean
from edgeprune.storage.documents import UnreadableError, read_toml
from edgeprune.storage.tables import Expected, TableError, from_table
from edgeprune.system.data import data_dir
from edgeprune.system.host import read_host

_FLOPS_PER_FMA = 2
_FP32_BITS = 32
_SOURCE_GROUPS = ("cpu", "memory", "width_quantum", "roofline", "error_band")

T = TypeVar("T")

Text = Annotated[str, Predicate(str.strip), Expected("a text in quotes that is not empty")]
Count = Annotated[int, Gt(0), Expected("a positive whole number")]
Bytes = Annotated[int, Ge(0), Expected("a whole number of bytes, or 0 for none,")]
Positive = Annotated[float, Gt(0), IsFinite, Expected("a positive number")]
NotNegative = Annotated[float, Ge(0), IsFinite, Expected("a number of at least 0")]
Share = Annotated[float, Gt(0), Le(1), Expected("a share, above 0 and at most 1,")]
LowFactor = Annotated[
    float, Gt(0), Le(1), Expected("a factor, above 0 and at most 1 since the band holds 1,")
]
HighFactor = Annotated[float, Ge(1), IsFinite, Expected("a factor of at least 1, since the band holds 1,")]
Lanes = Annotated[int, Gt(0), MultipleOf(_FP32_BITS), Expected("a multiple of 32")]


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Processor parameters of the latency prediction.

    Efficiencies are shares in (0, 1] of the peak that onnxruntime-like kernels reach.
    ``parallel_efficiency`` is what every thread after the first adds, as a share of a core.
    ``dispatch_overhead_us`` is the fixed cost of every node that runs. The error band multiplies a
    prediction: the truth is expected between ``error_low_factor`` (at most 1) and
    ``error_high_factor`` (at least 1) times it.
    """

    clock_ghz: Positive
    fma_pipes: Count
    memory_bandwidth_gb_per_s: Positive
    conv_efficiency: Share
    depthwise_efficiency: Share
    gemm_efficiency: Share
    parallel_efficiency: Share
    dispatch_overhead_us: NotNegative
    calibrated_on_device: bool
    error_low_factor: LowFactor
    error_high_factor: HighFactor
    error_reason: Text


@dataclass(frozen=True, kw_only=True)
class TargetProfile:
    """One device. ``None`` means unknown (only on the host); 0 cache bytes mean that there is no such cache.

    ``width_quantum`` is the number of channels that layer widths should be a multiple of.
    ``l2_cache_bytes`` and ``l3_cache_bytes`` are totals over the whole processor.
    ``roofline`` is ``None`` on the host, where latency is measured and never predicted.
    ``sources`` says for each group of fields where its figures come from.
    """

    name: Text
    display_name: Text
    aliases: tuple[Text, ...] = ()
    cpu_name: Text | None
    cores: Count | None
    default_threads: Count
    isa: Text | None
    dot_product: bool | None
    fp16_arithmetic: bool | None
    simd_width_bits: Lanes | None
    l2_cache_bytes: Bytes | None
    l3_cache_bytes: Bytes | None
    memory_bytes: Count | None
    width_quantum: Count
    width_quantum_reason: Text
    roofline: Roofline | None = None
    note: str = ""
    sources: dict[str, Text]

    @property
    def is_host(self) -> bool:
        """Whether this is the local machine."""
        return self.name == HOST

    @property
    def peak_gflops_per_core(self) -> float:
        """Peak fp32 GFLOP/s of one core: clock x pipes x lanes x 2 (a fused multiply-add is two operations).

        Raises:
            TargetError: the profile has no roofline.
        """
        if self.roofline is None or self.simd_width_bits is None:
            raise TargetError(
                f"target {self.name!r} has no roofline to derive a peak from; measure there instead"
            )
        lanes = self.simd_width_bits // _FP32_BITS
        return self.roofline.clock_ghz * self.roofline.fma_pipes * lanes * _FLOPS_PER_FMA


def list_targets() -> tuple[str, ...]:
    """Names of the shipped profiles, the host first, the rest in alphabetical order."""
    names = sorted(path.stem for path in data_dir("targets").glob("*.toml"))
    return tuple(sorted(names, key=lambda name: name != HOST))


def load_target(name_or_path: str) -> TargetProfile:
    """A profile by name, by alias, or from a user's own ``.toml`` file.

    Raises:
        TargetError: no such name or file, or the file is not a well-formed profile.
    """
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        return _load_own(Path(name_or_path).expanduser())
    shipped = {name: data_dir("targets") / f"{name}.toml" for name in list_targets()}
    if name_or_path == HOST and HOST in shipped:
        return describe_host()
    if name_or_path in shipped:
        return _load_file(shipped[name_or_path])
    aliases = _aliases(shipped)
    if name_or_path in aliases:
        return _load_file(shipped[aliases[name_or_path]])
    raise TargetError(_unknown_name(name_or_path, tuple(shipped), tuple(sorted(aliases))))


def describe_host() -> TargetProfile:
    """Profile of the local machine: cores, instruction set, caches and memory as reported by its OS.

    What the OS does not report is ``None``, and ``note`` names it.

    Raises:
        TargetError: the shipped ``host.toml`` is missing or malformed.
    """
    table = _read_toml(data_dir("targets") / f"{HOST}.toml")
    shipped = _build(_HostFile, table, f"{HOST}.toml")
    facts = read_host()
    unknown = [field.name for field in dataclasses.fields(facts) if getattr(facts, field.name) is None]
    note = f"unknown here: {', '.join(unknown)}" if unknown else ""
    return TargetProfile(
        name=HOST,
        display_name=shipped.display_name,
        cpu_name=facts.cpu_name,
        cores=facts.cores,
        default_threads=facts.cores or 1,
        isa=facts.isa,
        dot_product=facts.dot_product,
        fp16_arithmetic=facts.fp16_arithmetic,
        simd_width_bits=facts.simd_width_bits,
        l2_cache_bytes=facts.l2_cache_bytes,
        l3_cache_bytes=facts.l3_cache_bytes,
        memory_bytes=facts.memory_bytes,
        width_quantum=facts.width_quantum,
        width_quantum_reason=facts.width_quantum_reason,
        note=note,
        sources=shipped.sources,
    )


@dataclass(frozen=True, kw_only=True)
class _HostFile:
    name: Text
    display_name: Text
    detected_at_run_time: bool
    sources: dict[str, Text]


def _aliases(shipped: dict[str, Path]) -> dict[str, str]:
    return {
        alias: name for name, path in shipped.items() if name != HOST for alias in _load_file(path).aliases
    }


def _unknown_name(given: str, names: tuple[str, ...], aliases: tuple[str, ...]) -> str:
    suggestion = did_you_mean(given.lower(), (*names, *aliases), cutoff=0.5)
    kind = "alias" if len(aliases) == 1 else "aliases"
    return (
        f"unknown target {given!r}; {suggestion}accepted are {', '.join(names)}, "
        f"the {kind} {', '.join(aliases)}, and the path of your own .toml profile"
    )


def _load_own(path: Path) -> TargetProfile:
    if not path.is_file():
        raise TargetError(
            f"no target profile at {str(path)!r}; give the path of a .toml file "
            f"or one of {', '.join(list_targets())}"
        )
    profile = _load_file(path)
    if profile.is_host:
        raise TargetError(
            f"{path.name}: the name 'host' is kept for the machine that edgeprune runs on; "
            "give the profile another name"
        )
    return profile


def _load_file(path: Path) -> TargetProfile:
    profile = _build(TargetProfile, _read_toml(path), path.name)
    _check_profile(profile, path.name)
    return profile


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except UnreadableError as error:
        raise TargetError(f"{path.name} {error}; give a readable TOML file in UTF-8") from error


def _build(kind: type[T], table: dict[str, Any], where: str) -> T:
    try:
        return from_table(kind, table)
    except TableError as error:
        raise TargetError(f"{where} {error}") from error


def _check_profile(profile: TargetProfile, where: str) -> None:
    if profile.roofline is None:
        raise TargetError(f"{where}: the table [roofline] is missing; add it")
    missing = [group for group in _SOURCE_GROUPS if group not in profile.sources]
    if missing:
        raise TargetError(f"{where}: [sources] has no {missing[0]!r}; say where those figures come from")
    if profile.cores is not None and profile.default_threads > profile.cores:
        raise TargetError(
            f"{where}: default_threads is {profile.default_threads} on {profile.cores} cores; "
            "give at most one thread a core"
        )
