"""Names of an imported network's layers and tensors: those of the file, safe and unique."""

from __future__ import annotations

import keyword
import re

from torch import nn

_LONGEST = 120
_DEEPEST = 12
_TAKEN = frozenset(dir(nn.Module())) | {"steps", "plan"}


def layer_name(node: str | None, weight: str | None, op: str) -> str:
    """Wished name of a layer: that of its weights' module, else of its node, its weights or its operator."""
    if weight and weight.endswith((".weight", "_weight", ".kernel")):
        return weight[:-7]
    return node or weight or op


class Names:
    """Dotted paths given out so far: none is given twice, or lies within another."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._folders: set[str] = set()

    def claim(self, wished: str) -> str:
        """A free path that resembles ``wished``; parts between dots and slashes become modules."""
        parts = [_safe(part) for part in re.split(r"[./:]+", wished[-_LONGEST:]) if part] or ["layer"]
        path = ".".join(parts) if len(parts) <= _DEEPEST else "_".join(parts)
        if not self._is_free(path):
            flat = _safe(path.replace(".", "_"))
            number, path = 1, flat
            while not self._is_free(path):
                number += 1
                path = f"{flat}_{number}"
        self._given.add(path)
        self._folders.update(_folders(path))
        return path

    def _is_free(self, path: str) -> bool:
        return path not in self._given | self._folders and not self._given.intersection(_folders(path))


def _folders(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _safe(part: str) -> str:
    """An identifier, or a number as in ``nn.Sequential``."""
    text = re.sub(r"[^0-9A-Za-z_]", "_", part)
    if text.isdigit():
        return text
    text = text if not text[0].isdigit() else f"_{text}"
    text = text if not text.startswith("__") else f"x{text}"
    return f"{text}_" if keyword.iskeyword(text) or text in _TAKEN else text
