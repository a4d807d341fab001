"""Where a user's own files are kept."""

from __future__ import annotations

import os
from pathlib import Path


def configuration_folder() -> Path:
    """``$XDG_CONFIG_HOME/edgeprune``, or ``~/.config/edgeprune`` where that is not set to an absolute path.

    Source: XDG Base Directory Specification 0.8.
    """
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    base = given if given.is_absolute() else Path.home() / ".config"
    return base / "edgeprune"


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/edgeprune``, or ``~/.cache/edgeprune`` where that is not set to an absolute path."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = given if given.is_absolute() else Path.home() / ".cache"
    return base / "edgeprune"
