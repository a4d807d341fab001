"""The operators that can be imported, and what makes torch operations of them."""

from __future__ import annotations

from collections.abc import Callable

from edgeprune.loading.onnx_import.site import Imported, Site

Importer = Callable[[Site], Imported]

OPERATORS: dict[str, Importer] = {}
"""Importer by name of the ONNX operator (of the standard's own domain)."""


def operator(*names: str) -> Callable[[Importer], Importer]:
    """Register an importer for these operators."""

    def register(function: Importer) -> Importer:
        for name in names:
            OPERATORS[name] = function
        return function

    return register
