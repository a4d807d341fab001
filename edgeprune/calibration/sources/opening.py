"""Detect the kind of the given calibration data and open them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgeprune.artifacts.choices import Task
from edgeprune.calibration.annotations.annotated import TASKS, check_labels, open_annotated, values_found
from edgeprune.calibration.sources.arrays import open_arrays
from edgeprune.calibration.sources.datasets import open_dataset, open_dataset_function
from edgeprune.calibration.sources.folders import open_folder
from edgeprune.calibration.sources.source import ACCEPTED, ImageSource, ReadOptions
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.showing import in_short

_FUNCTION = re.compile(r"(.+\.py|\w+(\.\w+)*):[A-Za-z_]\w*")


def open_source(source: Any, options: ReadOptions, labels: str | Path | None = None) -> ImageSource:
    """Open a folder, a file, a function's name or a Dataset; ``labels`` are those of a folder's images.

    Raises:
        CalibrationError: it does not exist or is of no accepted kind.
        UsageError: ``labels`` for images that are in no folder, or of another task.
    """
    is_name = isinstance(source, (str, Path))
    given = None if labels is None else Path(labels).expanduser()
    check_labels(given, options.task)
    if is_name and (path := Path(source).expanduser()).is_dir():
        if given is None and options.task is Task.REGRESSION:
            given = values_found(path)
        if given is not None and options.task in TASKS:
            return open_annotated(path, options, given, options.task)
        return open_folder(path, options, given)
    if labels is not None:
        raise UsageError(
            f"--labels {str(labels)!r} was given, but {in_short(str(source))} is no folder of images; "
            "accepted are labels in the array 'labels' of an .npz file, or with the items of a Dataset"
        )
    if not is_name:
        return open_dataset(source, options, text=f"the {type(source).__name__} given")
    if path.exists() and not path.is_file():
        raise CalibrationError(f"{str(source)!r} is neither a folder nor a regular file; {ACCEPTED}")
    if path.exists():
        return open_arrays(path, options)
    if _FUNCTION.fullmatch(str(source)):
        return open_dataset_function(str(source), options)
    raise CalibrationError(f"the calibration data {str(source)!r} do not exist; {ACCEPTED}")
