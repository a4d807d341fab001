"""Where profiles are found: in the package, in the user's folder, by path, and the host as detected.

A profile is data (``targets/*.toml``); peak arithmetic is derived, never stored.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.artifacts.choices import HOST
from edgeprune.errors import TargetError
from edgeprune.showing import did_you_mean
from edgeprune.storage.documents import UnreadableError, read_toml
from edgeprune.storage.tables import TableError, from_table
from edgeprune.system.data import data_dir
from edgeprune.system.folders import configuration_folder
from edgeprune.system.host import read_host
from edgeprune.targets.profile import TargetProfile, Text

_SOURCE_GROUPS = ("cpu", "memory", "width_quantum")
_SOURCES_OF_ROOFLINES = ("roofline", "error_band")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")

T = TypeVar("T")


def list_targets() -> tuple[str, ...]:
    """Names of the shipped profiles, the host first, the rest in alphabetical order."""
    names = sorted(path.stem for path in data_dir("targets").glob("*.toml"))
    return tuple(sorted(names, key=lambda name: name != HOST))


def targets_folder() -> Path:
    """Folder of the user's own profiles: ``$XDG_CONFIG_HOME/edgeprune/targets``."""
    return configuration_folder() / "targets"


def own_targets() -> dict[str, Path]:
    """The user's own profiles by name; a shipped one of the same name comes before."""
    shipped = set(list_targets())
    files = sorted(targets_folder().glob("*.toml")) if targets_folder().is_dir() else []
    return {path.stem: path for path in files if path.stem not in shipped}


def load_target(name_or_path: str) -> TargetProfile:
    """A profile by name, by alias, or from a user's own ``.toml`` file.

    Names are those of shipped profiles, then their aliases, then of files in :func:`targets_folder`.

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
    own = own_targets()
    if name_or_path in own:
        return _load_own(own[name_or_path])
    raise TargetError(_unknown_name(name_or_path, (*shipped, *own), tuple(sorted(aliases))))


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
    told = f"unknown here: {', '.join(unknown)}" if unknown else ""
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
        note=told,
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
    check_profile(profile, path.name)
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


def check_profile(profile: TargetProfile, where: str) -> None:
    """Check what no single field says; ``where`` begins the sentence.

    Raises:
        TargetError: nothing to predict by, a group without its source, more threads than cores, or a name
            that is no file name.
    """
    if not _NAME.fullmatch(profile.name):
        raise TargetError(
            f"{where}: the name {profile.name!r} cannot be a file's; give small letters, digits, "
            "'-', '_' and '.'"
        )
    if profile.roofline is None and profile.calibration is None and not profile.is_host:
        raise TargetError(
            f"{where}: the table [roofline] is missing; add it, or [calibration] as 'edgeprune targets "
            "calibrate' writes it"
        )
    missing = [group for group in _groups(profile) if group not in profile.sources]
    if missing:
        raise TargetError(f"{where}: [sources] has no {missing[0]!r}; say where those figures come from")
    if profile.cores is not None and profile.default_threads > profile.cores:
        raise TargetError(
            f"{where}: default_threads is {profile.default_threads} on {profile.cores} cores; "
            "give at most one thread a core"
        )


def _groups(profile: TargetProfile) -> list[str]:
    """Groups of figures that need a source."""
    groups = list(_SOURCE_GROUPS)
    if profile.roofline is not None:
        groups += _SOURCES_OF_ROOFLINES
        groups += ["int8"] if profile.roofline.int8 is not None else []
    return groups + (["power"] if profile.power_w is not None else [])
