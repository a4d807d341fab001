"""Images in a folder: flat (no labels), or one sub-folder per class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from edgeprune.calibration.pixels import check_values, from_pil
from edgeprune.calibration.source import ImageSource, RawImage
from edgeprune.errors import CalibrationError
from edgeprune.showing import first_few

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""File names that count as images, in any case."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Whatever a file is called: Pillow would start other programs for some of the formats that it knows."""

_IGNORED_FOLDERS = ("__MACOSX",)
_IGNORED_FILES = ("card.toml", "Thumbs.db", "desktop.ini")
_NAMES_SHOWN = 3


def open_folder(folder: Path) -> ImageSource:
    """Images of a folder, sorted by name; labels number the sub-folders in alphabetical order.

    Hidden files are ignored. A sub-folder without images keeps its label, so that the others keep theirs.

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
    notes = _left_out((*top, *(p for files in nested.values() for p in files)), folder)
    flat = _images(top)
    classes = {name: _images(files) for name, files in nested.items()}
    inside = [p for files in classes.values() for p in files]
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
        return _source(folder, flat, labels=None, class_names=None, notes=notes)
    notes += _class_notes(classes)
    labels = tuple(label for label, files in enumerate(classes.values()) for _ in files)
    return _source(folder, inside, labels=labels, class_names=tuple(classes), notes=notes)


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


def _left_out(files: Iterable[Path], folder: Path) -> list[str]:
    others = [p for p in files if p.suffix.lower() not in IMAGE_EXTENSIONS and p.name not in _IGNORED_FILES]
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


def _source(
    folder: Path,
    files: list[Path],
    *,
    labels: tuple[int, ...] | None,
    class_names: tuple[str, ...] | None,
    notes: list[str],
) -> ImageSource:
    def read(index: int) -> RawImage:
        return _read_file(files[index], labels[index] if labels else None)

    return ImageSource(
        text=str(folder),
        count=len(files),
        read=read,
        name_of=lambda index: repr(str(files[index])),
        labels=labels,
        class_names=class_names,
        notes=tuple(notes),
    )


def _read_file(path: Path, label: int | None) -> RawImage:
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
                pixels = from_pil(image)
    except UnidentifiedImageError as error:
        raise CalibrationError(
            f"{str(path)!r} is no image that Pillow can read, or is damaged; replace or remove it"
        ) from error
    except (
        *(OSError, ValueError, SyntaxError, EOFError),
        *(Image.DecompressionBombError, Image.DecompressionBombWarning),
    ) as error:
        raise CalibrationError(
            f"the image {str(path)!r} cannot be read ({error}); replace or remove it"
        ) from error
    return RawImage(pixels=check_values(pixels, where=f"the image {str(path)!r}"), label=label)
