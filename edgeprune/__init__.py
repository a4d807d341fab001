"""edgeprune: take a trained PyTorch vision model to a small device."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.api import (
        apply_surgery,
        compress,
        compress_dry_run,
        inspect,
        pick,
        profile,
        quantize,
        rank,
        verify,
    )

__version__ = metadata.version("edgeprune")
__all__ = [
    "__version__",
    "apply_surgery",
    "compress",
    "compress_dry_run",
    "inspect",
    "pick",
    "profile",
    "quantize",
    "rank",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load the API on first use, so that ``edgeprune --help`` does not wait for torch."""
    if name in __all__:
        from edgeprune import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
