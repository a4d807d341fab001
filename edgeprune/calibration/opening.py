"""Detect the kind of the given calibration data and open them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgeprune.calibration.arrays import open_arrays
from edgeprune.calibration.datasets import open_dataset, open_dataset_function
from edgeprune.calibration.folders import open_folder
from edgeprune.calibration.source import ACCEPTED, ImageSource
from edgeprune.errors import CalibrationError

_FUNCTION = re.compile(r"(.+\.py|\w+(\.\w+)*):[A-Za-z_]\w*")


def open_source(source: Any, *, wanted: int | None) -> ImageSource:
    """Open a folder, a file, a function's name or a Dataset; ``wanted`` is the model's channels.

    Raises:
        CalibrationError: it does not exist or is of no accepted kind.
    """
    if not isinstance(source, (str, Path)):
        return open_dataset(source, text=f"the {type(source).__name__} given", wanted=wanted)
    path = Path(source).expanduser()
    if path.is_dir():
        return open_folder(path)
    if path.exists() and not path.is_file():
        raise CalibrationError(f"{str(source)!r} is neither a folder nor a regular file; {ACCEPTED}")
    if path.exists():
        return open_arrays(path, wanted=wanted)
    if _FUNCTION.fullmatch(str(source)):
        return open_dataset_function(str(source), wanted=wanted)
    raise CalibrationError(f"the calibration data {str(source)!r} do not exist; {ACCEPTED}")
