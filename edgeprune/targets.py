"""Device profiles: shipped ones by name, a user's own by path, and this host as it is.

A profile is data (``targets/*.toml``): every number has its unit in its name and its source in
``[sources]``. Peak arithmetic is derived here, never stored.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.artifacts.choices import HOST
from edgeprune.errors import TargetError
from edgeprune.showing import in_short
from edgeprune.storage.documents import UnreadableError, read_toml
from edgeprune.system.data import data_dir
from edgeprune.system.host import read_host

_FLOPS_PER_FMA = 2
_FP32_BITS = 32
_SOURCE_GROUPS = ("cpu", "memory", "width_quantum", "roofline", "error_band")
_MAY_BE_ZERO = frozenset({"l2_cache_bytes", "l3_cache_bytes", "dispatch_overhead_us"})
_SHARES = frozenset({"conv_efficiency", "depthwise_efficiency", "gemm_efficiency", "parallel_efficiency"})

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """What a latency prediction needs to know about a processor.

    Efficiencies are shares in (0, 1] of the peak that onnxruntime-like kernels reach.
    ``parallel_efficiency`` is what every thread after the first adds, as a share of a core.
    ``dispatch_overhead_us`` is the fixed cost of every node that runs. The error band multiplies a
    prediction: the truth is expected between ``error_low_factor`` (at most 1) and
    ``error_high_factor`` (at least 1) times it.
    """

    clock_ghz: float
    fma_pipes: int
    memory_bandwidth_gb_per_s: float
    conv_efficiency: float
    depthwise_efficiency: float
    gemm_efficiency: float
    parallel_efficiency: float
    dispatch_overhead_us: float
    calibrated_on_device: bool
    error_low_factor: float
    error_high_factor: float
    error_reason: str


@dataclass(frozen=True, kw_only=True)
class TargetProfile:
    """One device. ``None`` means unknown (only on the host); 0 cache bytes mean that there is no such cache.

    ``width_quantum`` is the number of channels that layer widths should be a multiple of.
    ``l2_cache_bytes`` and ``l3_cache_bytes`` are totals over the whole processor.
    ``roofline`` is ``None`` on the host, where latency is measured and never predicted.
    ``sources`` says for each group of fields where its figures come from.
    """

    name: str
    display_name: str
    aliases: tuple[str, ...] = ()
    cpu_name: str | None
    cores: int | None
    default_threads: int
    isa: str | None
    dot_product: bool | None
    fp16_arithmetic: bool | None
    simd_width_bits: int | None
    l2_cache_bytes: int | None
    l3_cache_bytes: int | None
    memory_bytes: int | None
    width_quantum: int
    width_quantum_reason: str
    roofline: Roofline | None = None
    note: str = ""
    sources: dict[str, str]

    @property
    def is_host(self) -> bool:
        """Whether this is the machine that we run on."""
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
    """The machine that we run on: cores, instruction set, caches and memory as its OS tells them.

    What the OS does not tell is ``None``, and ``note`` names it.

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
    name: str
    display_name: str
    detected_at_run_time: bool
    sources: dict[str, str]


def _aliases(shipped: dict[str, Path]) -> dict[str, str]:
    return {
        alias: name for name, path in shipped.items() if name != HOST for alias in _load_file(path).aliases
    }


def _unknown_name(given: str, names: tuple[str, ...], aliases: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(given.lower(), (*names, *aliases), n=1, cutoff=0.5)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
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
        raise TargetError(f"{path.name}: {error}; give a readable TOML file in UTF-8") from error


def _build(kind: type[T], table: dict[str, Any], where: str) -> T:
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(fields))
    if unknown:
        raise TargetError(f"{where}: unknown key {unknown[0]!r}; accepted are {', '.join(sorted(fields))}")
    missing = [n for n, f in fields.items() if n not in table and f.default is dataclasses.MISSING]
    if missing:
        raise TargetError(f"{where}: the key {missing[0]!r} is missing; add it")
    return kind(**{name: _value(hints[name], table[name], f"{where}: {name}") for name in table})


def _value(kind: Any, given: Any, where: str) -> Any:
    if typing.get_origin(kind) is types.UnionType:
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    if kind is Roofline:
        if not isinstance(given, dict):
            raise TargetError(f"{where} must be a table, not {in_short(given)}")
        return _build(Roofline, given, where)
    if typing.get_origin(kind) is tuple:
        if not (isinstance(given, list) and all(isinstance(item, str) for item in given)):
            raise TargetError(f"{where} must be a list of strings, not {in_short(given)}")
        return tuple(given)
    if typing.get_origin(kind) is dict:
        if not (isinstance(given, dict) and all(isinstance(v, str) and v.strip() for v in given.values())):
            raise TargetError(f"{where} must be a table of non-empty strings, not {in_short(given)}")
        return given
    return _scalar(kind, given, where)


def _scalar(kind: Any, given: Any, where: str) -> Any:
    if kind is float and type(given) is int:
        given = float(given)
    if type(given) is not kind:
        raise TargetError(f"{where} must be of type {kind.__name__}, not {in_short(given)}")
    if kind in (int, float):
        _check_number(given, where)
    if kind is str and not given.strip():
        raise TargetError(f"{where} must not be empty")
    return given


def _check_number(given: float, where: str) -> None:
    name = where.rsplit(": ", 1)[-1]
    if not math.isfinite(given) or given < 0 or (given == 0 and name not in _MAY_BE_ZERO):
        raise TargetError(f"{where} must be a positive number, not {in_short(given)}")
    if name in _SHARES and given > 1:
        raise TargetError(f"{where} is a share in (0, 1], not {in_short(given)}")


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
    if profile.simd_width_bits is not None and profile.simd_width_bits % _FP32_BITS:
        raise TargetError(f"{where}: simd_width_bits must be a multiple of 32, not {profile.simd_width_bits}")
    low, high = profile.roofline.error_low_factor, profile.roofline.error_high_factor
    if not low <= 1.0 <= high:
        raise TargetError(f"{where}: the error band must hold 1, not {low} to {high}")
