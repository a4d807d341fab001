"""Images in a folder: flat (no labels), or one sub-folder per class."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from edgeprune.calibration.annotations.label_file import FileLabels, find_labels, lists_any, read_labels
from edgeprune.calibration.pixels import check_values
from edgeprune.calibration.sources.pictures import from_pil
from edgeprune.calibration.sources.source import ImageSource, RawImage, ReadOptions
from edgeprune.errors import CalibrationError
from edgeprune.showing import first_few

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""File names that count as images, in any case."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Whatever a file is called: Pillow would start other programs for some of the formats that it knows."""

_IGNORED_FOLDERS = ("__MACOSX",)
_IGNORED_FILES = ("card.toml", "Thumbs.db", "desktop.ini")
_NAMES_SHOWN = 3
Result = TypeVar("Result")


def open_folder(folder: Path, options: ReadOptions, labels: Path | None) -> ImageSource:
    """Images of a folder, sorted by name; labels number the sub-folders in alphabetical order.

    A CSV file of labels counts instead of the sub-folders; without these, one in the folder or beside it is
    used by itself. Hidden files are ignored. A sub-folder without images keeps its label, so that the others
    keep theirs.

    Raises:
        CalibrationError: no images, images both at the top and in sub-folders, or unreadable.
    """
    try:
        entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise CalibrationError(f"the folder {str(folder)!r} cannot be read ({error.strerror})") from error
    top = [p for p in entries if not p.is_dir()]
    names = [p.name for p in entries if p.is_dir() and p.name not in _IGNORED_FOLDERS]
    nested = {name: _files_below(folder / name) for name in names}
    flat = _images(top)
    labels, notes = (labels, []) if labels is not None or not flat else _labels_of(folder, flat)
    notes += _left_out((*top, *(p for files in nested.values() for p in files)), folder, labels)
    classes = {name: _images(files) for name, files in nested.items()}
    inside = [p for files in classes.values() for p in files]
    if labels is not None and (flat or inside):
        return _labelled(folder, sorted((*flat, *inside)), options, labels, notes)
    if flat and inside:
        raise CalibrationError(
            f"the folder {str(folder)!r} has images both at its top ({_shown(flat, folder)}) and in "
            f"sub-folders ({_shown(inside, folder)}); accepted is one or the other: move those at the top "
            "into the folder of their class, or name the folder that holds only images"
        )
    if not flat and not inside:
        raise _no_images(folder, top, nested)
    if flat:
        notes += [f"the sub-folder {name!r} has no images and was left out" for name in names]
        return source_of_files(folder, flat, options, None, notes)
    notes += _class_notes(classes)
    numbers = tuple(label for label, files in enumerate(classes.values()) for _ in files)
    known = FileLabels(labels=numbers, class_names=tuple(classes))
    return source_of_files(folder, inside, options, known, notes)


def _labels_of(folder: Path, files: list[Path]) -> tuple[Path | None, list[str]]:
    """The file of labels in a folder of images or beside it, where that is of these images, and remarks."""
    path = find_labels(folder)
    if path is None or path.parent == folder or lists_any(path, folder, files):
        return path, []
    return None, [
        f"the file {str(path)!r} beside the images was not used: it lists none of them under the header "
        "file,label"
    ]


def _labelled(
    folder: Path, files: list[Path], options: ReadOptions, labels: Path, notes: list[str]
) -> ImageSource:
    known = read_labels(labels, folder, files)
    return source_of_files(folder, files, options, known, [*notes, *known.notes])


def _files_below(folder: Path) -> list[Path]:
    paths: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [n for n in folders if not n.startswith(".") and n not in _IGNORED_FOLDERS]
        paths += [Path(place) / n for n in files if not n.startswith(".")]
    return sorted(paths)


def _images(files: Iterable[Path]) -> list[Path]:
    return [p for p in files if p.suffix.lower() in IMAGE_EXTENSIONS]


def _shown(files: list[Path], folder: Path) -> str:
    return first_few([repr(str(p.relative_to(folder))) for p in files], _NAMES_SHOWN)


def _left_out(files: Iterable[Path], folder: Path, labels: Path | None) -> list[str]:
    others = [p for p in files if p.suffix.lower() not in IMAGE_EXTENSIONS and p.name not in _IGNORED_FILES]
    others = [p for p in others if labels is None or p.name != labels.name]
    if not others:
        return []
    return [f"left out, since their names do not end like an image's: {_shown(others, folder)}"]


def _no_images(folder: Path, top: list[Path], nested: dict[str, list[Path]]) -> CalibrationError:
    accepted = f"accepted are files that end in {', '.join(IMAGE_EXTENSIONS)}"
    if not top and not nested:
        return CalibrationError(f"the folder {str(folder)!r} is empty; {accepted}")
    count = len(top) + sum(len(files) for files in nested.values())
    return CalibrationError(f"the folder {str(folder)!r} has no images among its {count} files; {accepted}")


def _class_notes(classes: dict[str, list[Path]]) -> list[str]:
    notes = [
        f"the class folder {name!r} has no images; it keeps its label, {label}"
        for label, (name, files) in enumerate(classes.items())
        if not files
    ]
    if all(name.isdecimal() for name in classes) and list(classes) != sorted(classes, key=int):
        notes.append(
            "the class folders are numbers, taken in alphabetical order as torchvision's ImageFolder does "
            f"({', '.join(list(classes)[:4])}, ...); if the model counts them by value, pad their names "
            "with zeros"
        )
    return notes


def source_of_files(
    folder: Path,
    files: list[Path],
    options: ReadOptions,
    known: FileLabels | None = None,
    notes: Sequence[str] = (),
) -> ImageSource:
    """Images of some files of a folder, with the classes that are known of them."""
    labels = None if known is None else known.labels

    def read(index: int) -> RawImage:
        return replace(_read_file(files[index], options), label=labels[index] if labels else None)

    return ImageSource(
        text=str(folder),
        count=len(files),
        read=read,
        name_of=lambda index: repr(str(files[index])),
        labels=labels,
        class_names=None if known is None else known.class_names,
        notes=tuple(notes),
    )


def image_files(folder: Path) -> list[Path]:
    """All images below a folder, hidden ones left out, in order.

    Raises:
        CalibrationError: there are none.
    """
    files = _files_below(folder)
    images = _images(files)
    if not images:
        raise _no_images(folder, files, {})
    return images


def _read_file(path: Path, options: ReadOptions) -> RawImage:
    raw = opened_image(path, lambda image: from_pil(image, options))
    return replace(raw, pixels=check_values(raw.pixels, f"the image {str(path)!r}"))


def opened_image(path: Path, use: Callable[[Image.Image], Result]) -> Result:
    """What ``use`` makes of the image in a file, which is closed afterwards.

    Raises:
        CalibrationError: it is no regular file, no image, damaged or too large.
    """
    if not path.is_file():
        # Opening a named pipe would block until something is written to it.
        raise CalibrationError(
            f"the image {str(path)!r} is no regular file (a pipe, a socket, a device or a link to nothing); "
            "replace or remove it"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                return use(image)
    except UnidentifiedImageError as error:
        raise CalibrationError(
            f"{str(path)!r} is no image that Pillow can read, or is damaged; replace or remove it"
        ) from error
    except (
        *(OSError, ValueError, SyntaxError, EOFError),
        *(TypeError, LookupError, OverflowError, struct.error),  # of Pillow, for tags of other types
        *(Image.DecompressionBombError, Image.DecompressionBombWarning),
    ) as error:
        raise CalibrationError(
            f"the image {str(path)!r} cannot be read ({error}); replace or remove it"
        ) from error
