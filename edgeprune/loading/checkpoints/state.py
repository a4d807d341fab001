"""A state_dict as it was saved: tensors, extra states and the versions of the classes that wrote it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

EXTRA_STATE = "_extra_state"
"""Last part of the keys under which torch saves what ``get_extra_state`` returns."""


@dataclass(frozen=True)
class StateDict:
    """``entries`` by key, tensors and extra states; ``versions`` is torch's ``_metadata`` by module path."""

    entries: dict[str, Any]
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Entries that are tensors."""
        return {key: value for key, value in self.entries.items() if isinstance(value, Tensor)}

    def below(self, prefix: str) -> StateDict:
        """Entries whose keys begin with ``prefix`` (it ends with a dot), without it."""
        paths = {path + ".": told for path, told in self.versions.items()}
        return StateDict(
            entries={k.removeprefix(prefix): v for k, v in self.entries.items() if k.startswith(prefix)},
            versions={p.removeprefix(prefix)[:-1]: v for p, v in paths.items() if p.startswith(prefix)},
        )

    def as_torch(self) -> OrderedDict[str, Any]:
        """A copy as ``load_state_dict`` takes it; hooks of the module may change it."""
        made: OrderedDict[str, Any] = OrderedDict(self.entries)
        if self.versions:
            made._metadata = {path: dict(told) for path, told in self.versions.items()}  # type: ignore[attr-defined]
        return made


def is_extra_state(key: str) -> bool:
    """Whether torch saves what ``get_extra_state`` returns under this key."""
    return key.rpartition(".")[2] == EXTRA_STATE


def versions_of(content: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Versions of classes beside a state_dict; what is not of their form is left out."""
    told = getattr(content, "_metadata", None)
    if not isinstance(told, Mapping):
        return {}
    return {
        path: {name: value for name, value in entry.items() if name != "version" or type(value) is int}
        for path, entry in told.items()
        if isinstance(path, str) and isinstance(entry, Mapping)
    }
