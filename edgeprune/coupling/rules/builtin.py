"""All rules that come with edgeprune: importing this registers them."""

from __future__ import annotations

from edgeprune.coupling.rules import (  # noqa: F401 - each registers its rules
    attention,
    indexing,
    joining,
    layers,
    norms,
    recurrent,
    reductions,
)
