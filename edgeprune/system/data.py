"""Location of the shipped data files: device profiles and calibration sets."""

from __future__ import annotations

from pathlib import Path


def data_dir(kind: str) -> Path:
    """Folder of the shipped data of one kind (``targets`` or ``calibration``).

    A wheel carries them inside the package; a checkout has them at its top level.
    """
    package = Path(__file__).resolve().parents[1]
    shipped = package / "_data" / kind
    return shipped if shipped.is_dir() else package.parent / kind
