"""Retired instructions by class."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class InstructionCounts:
    """Instructions of an aarch64 core.

    ``float_multiply_add``: FMLA, FMADD; ``dot_product``: SDOT, UDOT, SMMLA; ``widening_multiply``: SMLAL,
    SMULL; ``other_vector``: all else of the vector and floating-point unit.
    """

    float_multiply_add: int
    dot_product: int
    widening_multiply: int
    other_vector: int
    load_store: int
    branch: int
    integer: int

    @property
    def total(self) -> int:
        """Of all classes."""
        return sum(getattr(self, name) for name in self.names())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(field.name for field in fields(cls))
