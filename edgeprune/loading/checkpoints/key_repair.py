"""Match keys of a file with those of a module where wrappers or other objects stand in between."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from edgeprune.loading.checkpoints.state import StateDict

WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
    | {"model", "_model", "net", "network", "backbone"}
)
"""Names under which a wrapper, or what trains a network, holds it."""
AVERAGED = frozenset({"ema", "model_ema", "ema_model", "ema_net", "averaged_model"})
"""Names under which averages of a network's weights stand beside them."""
BESIDE = frozenset({"student", "teacher"})
"""Names of networks that stand beside each other."""
_ROLES = AVERAGED | BESIDE
_STRIPPED = WRAPPERS | _ROLES
_MOST_STRIPPED = 6
_MOST_NETWORKS = 8
_DEEPEST = 100
"""Parts of a key behind which no class that wrote a file is looked for."""
_NORM_NAMES = (("original0", "g"), ("original1", "v"))


@dataclass(frozen=True)
class Renaming:
    """A key of the file, the key of the module, and which dotted parts of the first are not in the second."""

    key: str
    target: str
    dropped: tuple[int, ...]

    @property
    def parts(self) -> list[str]:
        """Dotted parts of the file's key."""
        return self.key.split(".")

    @property
    def role(self) -> str:
        """Which of several networks in a file this is of; empty for the only one."""
        return ".".join(self.parts[i] for i in self.dropped if self.parts[i] in _ROLES)

    @property
    def root(self) -> tuple[str, ...]:
        """Parts dropped in front."""
        count = next((n for n, i in enumerate(self.dropped) if n != i), len(self.dropped))
        return tuple(self.parts[:count])


@dataclass
class Candidate:
    """One network of the file: its keys with their names in the module, and keys that are not of it.

    ``rivals`` are two keys of different content for the same place.
    """

    role: str
    renamings: dict[str, Renaming]
    outside: list[str] = field(default_factory=list)
    rivals: tuple[str, str] | None = None
    root: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        """Whether these are averages of weights."""
        return any(part in AVERAGED for part in self.role.split("."))

    def state(self, given: StateDict) -> StateDict:
        """The entries under their names in the module, and the versions of their classes."""
        entries = {r.target: given.entries[key] for key, r in self.renamings.items()}
        paths: dict[str, str] = {"": ""}
        for renaming in self.renamings.values():
            parts = renaming.parts
            for length in range(1, min(len(parts), _DEEPEST)):
                kept = [part for i, part in enumerate(parts[:length]) if i not in renaming.dropped]
                paths[".".join(parts[:length])] = ".".join(kept)
        known = sorted((path for path in given.versions if path in paths), key=len)
        return StateDict(entries, {paths[path]: given.versions[path] for path in known})

    def notes(self) -> list[str]:
        """What was taken out of the keys."""
        told = []
        if self.root:
            told.append(f"the prefix {'.'.join(self.root) + '.'!r} was removed from all keys")
        inner = [r for r in self.renamings.values() if len(r.dropped) > len(self.root)]
        if inner:
            names = sorted({r.parts[i] for r in inner for i in r.dropped[len(self.root) :]})
            shown = " and ".join(repr(name + ".") for name in names)
            told.append(f"{shown} was taken out of {len(inner)} keys, such as {inner[0].key!r}")
        renamed = [r for r in self.renamings.values() if r.parts[-1] != r.target.rpartition(".")[2]]
        if renamed:
            told.append(
                f"{len(renamed)} keys of weight normalisation were renamed, such as {renamed[0].key!r} to "
                f"{renamed[0].target!r}"
            )
        return told


def candidates(given: StateDict, accepted: set[str], modules: set[str]) -> list[Candidate]:
    """Networks of which the file could hold the weights, the most likely first.

    ``accepted`` are keys of the module's own state_dict, ``modules`` the paths of its parts.
    """
    nearest = [renaming for key in given.entries for renaming in _nearest(key, accepted)]
    networks = sorted(_by_network(nearest), key=lambda network: -len(network[1]))[:_MOST_NETWORKS]
    made = [_chosen(role, renamings, given.entries) for role, renamings in networks]
    for candidate in made:
        candidate.root = _common(r.root for r in candidate.renamings.values())
        _add_others(candidate, given, made, modules)
    return sorted(made, key=lambda c: (c.averaged, c.role != "", -len(c.renamings)))


def _by_network(renamings: list[Renaming]) -> Iterable[tuple[str, list[Renaming]]]:
    """Those of each network: of one role, and where they begin with several wrappers, of one wrapper."""
    by_role: dict[str, list[Renaming]] = {}
    for renaming in renamings:
        by_role.setdefault(renaming.role, []).append(renaming)
    for role, of_role in by_role.items():
        heads = dict.fromkeys(renaming.root[:1] for renaming in of_role)
        if len([head for head in heads if head]) < 2:
            yield role, of_role
            continue
        for head in heads:
            yield role, [renaming for renaming in of_role if renaming.root[:1] == head]


def _variants(key: str) -> Iterable[Renaming]:
    """The key without some of the names that wrappers add, fewest left out first."""
    parts = key.split(".")
    places = [i for i, part in enumerate(parts[:-1]) if part in _STRIPPED][:_MOST_STRIPPED]
    for count in range(len(places) + 1):
        for dropped in itertools.combinations(places, count):
            kept = [part for i, part in enumerate(parts) if i not in dropped]
            yield Renaming(key, ".".join(kept), dropped)


def _nearest(key: str, accepted: set[str]) -> list[Renaming]:
    """Variants that the module has, as few parts left out as possible; several where that is undecided."""
    for _, group in itertools.groupby(_variants(key), key=lambda r: len(r.dropped)):
        fitting = {}
        for renaming in group:
            for target in (renaming.target, *_other_norm_names(renaming.target)):
                if target in accepted and target not in fitting:
                    fitting[target] = Renaming(key, target, renaming.dropped)
                    break
        if fitting:
            return list(fitting.values())
    return []


def _other_norm_names(key: str) -> Iterable[str]:
    """The name of a weight-normalised tensor in the other of torch's two ways to keep it."""
    path, _, last = key.rpartition(".")
    dot = "." if path else ""
    for new, old in _NORM_NAMES:
        if last.endswith("_" + old):
            yield f"{path}{dot}parametrizations.{last[: -len(old) - 1]}.{new}"
        if last == new:
            owner, _, name = path.rpartition(".")
            outer, _, marker = owner.rpartition(".")
            if marker == "parametrizations":
                yield f"{outer}{'.' if outer else ''}{name}_{old}"


def _chosen(role: str, renamings: list[Renaming], entries: Mapping[str, Any]) -> Candidate:
    candidate = Candidate(role, {})
    targets: dict[str, list[Renaming]] = {}
    for renaming in renamings:
        targets.setdefault(renaming.target, []).append(renaming)
    for rivals in targets.values():
        ordered = sorted(rivals, key=lambda r: len(r.dropped))
        first = ordered[0]
        for other in ordered[1:]:
            if first.dropped and not _equal(entries[first.key], entries[other.key]):
                candidate.rivals = candidate.rivals or (first.key, other.key)
        if first.key in candidate.renamings and candidate.renamings[first.key] != first:
            candidate.rivals = candidate.rivals or (first.target, candidate.renamings[first.key].target)
        candidate.renamings[first.key] = first
    return candidate


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
    return first is second


def same_weights(first: StateDict, second: StateDict) -> bool:
    """Whether two state_dicts have the same keys with equal tensors."""
    return first.entries.keys() == second.entries.keys() and all(
        _equal(value, second.entries[key]) for key, value in first.entries.items()
    )


def _common(roots: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """What all of them begin with."""
    shared: tuple[str, ...] | None = None
    for root in roots:
        if shared is None:
            shared = root
        while root[: len(shared)] != shared:
            shared = shared[:-1]
    return shared or ()


def _add_others(candidate: Candidate, given: StateDict, made: list[Candidate], modules: set[str]) -> None:
    """Sort keys that the module does not have as they are: those of old versions, and of other objects."""
    taken = {key for other in made for key in other.renamings}
    targets = {renaming.target for renaming in candidate.renamings.values()}
    for key in given.entries:
        if key in candidate.renamings:
            continue
        parts = key.split(".")
        inside = tuple(parts[: len(candidate.root)]) == candidate.root
        elsewhere = key in taken or (not candidate.root and (candidate.role or parts[0] in _ROLES))
        if not inside or elsewhere:
            candidate.outside.append(key)
            continue
        renaming = _beside_its_siblings(key, candidate.root, modules)
        if renaming.target in targets:
            renaming = _without_root(key, candidate.root)
        targets.add(renaming.target)
        candidate.renamings[key] = renaming


def _without_root(key: str, root: tuple[str, ...]) -> Renaming:
    return Renaming(key, key.split(".", len(root))[-1], tuple(range(len(root))))


def _beside_its_siblings(key: str, root: tuple[str, ...], modules: set[str]) -> Renaming:
    """The variant that goes deepest into the module's parts, the root left out in any case.

    Of several the one with the fewest wrappers behind a part of the module; a key in no part stays as it is.
    """
    least = _without_root(key, root)
    best, rank = least, (0, 0)
    for renaming in _variants(key):
        depth = _depth(renaming.target, modules)
        reached = (depth, len(renaming.dropped))
        if depth and renaming.dropped[: len(root)] == least.dropped and reached > rank:
            best, rank = renaming, reached
    return best


def _depth(key: str, modules: set[str]) -> int:
    """How many leading parts of a key name a part of the module."""
    path, depth = "", 0
    for part in key.split(".")[:-1]:
        path = f"{path}.{part}" if path else part
        if path not in modules:
            break
        depth += 1
    return depth
