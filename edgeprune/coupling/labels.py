"""Atoms and their unions: which tensor indices are kept or removed together.

Every index of a parameter dimension that a rule touches is an *atom* (an integer). Rules union
atoms; each resulting class is one player, unless an op froze it. Atom 0 is frozen from the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Atoms = NDArray[np.int64]
"""Atom of every index along one tensor dimension."""

DimLabels = dict[int, Atoms]
"""Labels of a tensor value: dimension -> atoms. A dimension that is absent has no channel that could go."""

FROZEN = 0


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """Why some atoms cannot be removed."""

    node: str
    op: str
    reason: str


class AtomTable:
    """Union-find over atoms; a class may be frozen, with the reason of the first freeze."""

    def __init__(self) -> None:
        self._parent: list[int] = [FROZEN]
        self._frozen: dict[int, Freeze] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, count: int) -> Atoms:
        """Allocate ``count`` fresh atoms."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def _root(self, atom: int) -> int:
        root = atom
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[atom] != root:
            self._parent[atom], atom = root, self._parent[atom]
        return root

    def roots(self, atoms: Atoms) -> Atoms:
        """Representative of each atom's class; ``FROZEN`` where the class is frozen."""
        unique, inverse = np.unique(atoms, return_inverse=True)
        roots = [self._root(int(a)) for a in unique]
        live = np.array([FROZEN if r in self._frozen else r for r in roots], dtype=np.int64)
        return live[inverse].reshape(atoms.shape)

    def union(self, left: Atoms, right: Atoms, because: Freeze) -> None:
        """Couple two label vectors index by index; atom ``FROZEN`` on one side freezes the other."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            if FROZEN in (a, b):
                self.freeze(np.array([a, b]), because)
                continue
            root_a, root_b = self._root(a), self._root(b)
            if root_a == root_b:
                continue
            low, high = min(root_a, root_b), max(root_a, root_b)
            self._parent[high] = low
            if high in self._frozen:
                self._frozen.setdefault(low, self._frozen[high])

    def freeze(self, atoms: Atoms, because: Freeze) -> None:
        """Mark these atoms, and all coupled with them, as not removable."""
        for atom in np.unique(atoms).tolist():
            root = self._root(atom)
            if root != FROZEN:
                self._frozen.setdefault(root, because)

    def reason_of(self, atom: int) -> Freeze | None:
        """Why the class of ``atom`` is frozen; ``None`` if it is not."""
        return self._frozen.get(self._root(atom))
