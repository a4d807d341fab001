"""Preprocessing cards: small TOML files that say how images become a model's input."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from edgeprune import limits
from edgeprune.artifacts.calibration import PAD_VALUE, ChannelOrder, Ground, Preprocessing
from edgeprune.artifacts.calibration import ImageSize as Size
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.options.accepted import Deviations, ImageSize, Means, PadValue, per_channel
from edgeprune.showing import did_you_mean, in_short
from edgeprune.storage.documents import UnreadableError, read_toml
from edgeprune.storage.tables import TableError, from_table
from edgeprune.system.data import data_dir

FOLDER_CARD_NAME = "card.toml"


@dataclass(frozen=True, kw_only=True)
class PreprocessingTable:
    """Keys of preprocessing as they are in a card or a project file."""

    resize: ImageSize | None = None
    crop: ImageSize | None = None
    letterbox: ImageSize | None = None
    pad: PadValue | None = None
    exif: bool | None = None
    ground: Ground | None = None
    mean: Means | None = None
    std: Deviations | None = None
    channel_order: ChannelOrder | None = None

    def options(self, *, card: str | None = None) -> PreprocessingOptions:
        """The values that the keys stand for."""
        values = {field.name: getattr(self, field.name) for field in fields(PreprocessingTable)}
        sizes = {name: limits.IMAGE_SIZES.read(values[name]) for name in ("resize", "crop", "letterbox")}
        numbers = {name: per_channel(values[name]) for name in ("mean", "std")}
        return PreprocessingOptions(card=card, **{**values, **sizes, **numbers})


@dataclass(frozen=True, kw_only=True)
class _CardTexts:
    """What a card says of itself."""

    name: str | None = None
    description: str = ""
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class _CardTable(PreprocessingTable, _CardTexts):
    """A card file as it is."""


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """Preprocessing as asked for; ``None`` leaves a value to the card, or to the card beside the data."""

    card: str | None = None
    resize: Size | None = None
    crop: Size | None = None
    letterbox: Size | None = None
    pad: int | None = None
    exif: bool | None = None
    ground: Ground | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: ChannelOrder | None = None

    def over(self, others: PreprocessingOptions) -> PreprocessingOptions:
        """These, and the others' where these are ``None``; a letterbox and other sizes replace each other."""
        return replace(_without_replaced(others, self), **_given(self))


Sizes = TypeVar("Sizes", Preprocessing, PreprocessingOptions)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card as read: the preprocessing, and where its figures come from."""

    name: str
    path: Path
    preprocessing: Preprocessing
    description: str = ""
    source: str = ""
    licence: str = ""


def list_cards() -> tuple[Card, ...]:
    """All shipped cards, by name.

    Raises:
        CalibrationError: a card is malformed.
    """
    return tuple(read_card(path) for path in sorted(data_dir("calibration").glob("*.toml")))


def load_card(name_or_path: str | Path) -> Preprocessing:
    """Preprocessing of a shipped card (``imagenet``) or of a card file (``path/to/card.toml``).

    Raises:
        UsageError: there is no such card.
        CalibrationError: the card is malformed.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.is_file():
        if not path.exists():
            raise UsageError(
                f"the card {str(name_or_path)!r} does not exist; give a file or {_known_names()}"
            )
        return read_card(path).preprocessing
    shipped = data_dir("calibration") / f"{name_or_path}.toml"
    if str(name_or_path) not in _names():
        hint = did_you_mean(str(name_or_path), _names())
        raise UsageError(
            f"there is no card {str(name_or_path)!r}; {hint}give {_known_names()} or a .toml file"
        )
    return read_card(shipped).preprocessing


def _names() -> list[str]:
    return sorted(path.stem for path in data_dir("calibration").glob("*.toml"))


def _known_names() -> str:
    return f"a shipped card ({', '.join(_names())})"


def find_card(source: str | Path) -> Path | None:
    """The card beside calibration data: ``card.toml`` in a folder, ``NAME.toml`` beside ``NAME.npz``."""
    path = Path(source)
    card = path / FOLDER_CARD_NAME if path.is_dir() else path.with_suffix(".toml") if path.suffix else None
    return card if card is not None and card.is_file() and path.exists() else None


def read_card(path: str | Path) -> Card:
    """Read a card file.

    Raises:
        CalibrationError: no valid TOML, an unknown key, or a value that is not accepted.
    """
    file = Path(path)
    try:
        table = read_toml(file)
    except UnreadableError as error:
        raise CalibrationError(
            f"the card {str(file)!r} {error}; correct the file, or name another with --card"
        ) from error
    try:
        card = from_table(_CardTable, table)
    except TableError as error:
        raise CalibrationError(f"the card {str(file)!r} {error}") from error
    preprocessing = merge_preprocessing(None, card.options())
    try:
        check_preprocessing(preprocessing)
    except UsageError as error:
        raise CalibrationError(f"the card {str(file)!r} is contradictory: {error}") from error
    texts = {"description": card.description, "source": card.source, "licence": card.licence}
    return Card(path=file, preprocessing=preprocessing, name=card.name or file.stem, **texts)


def merge_preprocessing(card: Preprocessing | None, asked: PreprocessingOptions) -> Preprocessing:
    """Options laid over a card: every one that is not ``None`` replaces the card's value.

    A letterbox asked for also replaces the card's ``resize`` and ``crop``, and ``resize`` its letterbox.
    """
    changes = {name: value for name, value in _given(asked).items() if name != "card"}
    return replace(_without_replaced(card or Preprocessing(), asked), **changes)


def _given(asked: PreprocessingOptions) -> dict[str, Any]:
    values = {field.name: getattr(asked, field.name) for field in fields(asked)}
    return {name: value for name, value in values.items() if value is not None}


def _without_replaced(base: Sizes, asked: PreprocessingOptions) -> Sizes:
    """``base`` without the sizes that those asked for exclude."""
    if asked.letterbox is not None:
        return replace(base, resize=None, crop=None)
    if asked.resize is not None and base.letterbox is not None:
        return replace(base, letterbox=None, pad=type(base)().pad)
    return base


def check_preprocessing(options: Preprocessing) -> None:
    """Reject values that cannot be applied to any image.

    Raises:
        UsageError: names the option, its value and what is accepted.
    """
    for name in ("resize", "crop", "letterbox", "pad"):
        if (value := getattr(options, name)) is not None:
            limit = limits.PAD_VALUES if name == "pad" else limits.IMAGE_SIZES
            limit.check(f"--{name}", value)
    for name, numbers in (("mean", limits.MEANS), ("std", limits.DEVIATIONS)):
        if (values := getattr(options, name)) is not None:
            numbers.check(f"--{name}", values)
    limits.check_counts(options.mean, options.std)
    _check_sizes(options)


def _check_sizes(options: Preprocessing) -> None:
    """Reject sizes that exclude each other."""
    letterbox, resize, crop = options.letterbox, options.resize, options.crop
    for name, size in (("--resize", resize), ("--crop", crop)):
        if letterbox is not None and size is not None:
            raise UsageError(
                f"--letterbox {shown_size(letterbox)} and {name} {shown_size(size)} were given; accepted is "
                "a letterbox alone, which makes images of its own size, or --resize and --crop"
            )
    if letterbox is None and options.pad != PAD_VALUE:
        raise UsageError(
            f"--pad {options.pad} was given without --letterbox, whose borders it fills; accepted are both, "
            "or none"
        )
    if resize is None or crop is None:
        return
    height, width = (crop, crop) if isinstance(crop, int) else crop
    too_small = (
        min(height, width) > resize if isinstance(resize, int) else _is_inside(resize, (height, width))
    )
    if too_small:
        raise UsageError(
            f"--crop {shown_size(crop)} is larger than --resize {shown_size(resize)}, which comes before it; "
            "accepted is one that fits (that of a card counts, too), or --letterbox for images with borders"
        )


def _is_inside(resize: tuple[int, int], crop: tuple[int, int]) -> bool:
    return resize[0] < crop[0] or resize[1] < crop[1]


def shown_size(size: Size) -> str:
    """A size as it is given: ``224`` or ``64x96``."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def resolve_preprocessing(source: str | Path, asked: PreprocessingOptions) -> Preprocessing | None:
    """Preprocessing of ``source``: options override the named card, else the card beside the data.

    ``None`` if there is neither, so that the data can be used unchanged.

    Raises:
        UsageError: there is no such card.
        CalibrationError: a card is malformed.
    """
    base = None
    if asked.card is not None:
        base = load_card(asked.card)
    elif (beside := find_card(source)) is not None:
        base = read_card(beside).preprocessing
    if base is None and asked == PreprocessingOptions():
        return None
    return merge_preprocessing(base, asked)


def parse_floats(text: str, *, option: str, numbers: limits.ChannelNumbers) -> tuple[float, ...]:
    """Parse numbers such as ``0.485,0.456,0.406`` or ``127/255``, given to ``option``.

    Raises:
        UsageError: a part is not a number, or not accepted by ``numbers``.
    """
    fractions = [limits.read_fraction(part) for part in text.split(",")]
    values = tuple(math.nan if value is None else value for value in fractions)
    if not numbers.hold(values):
        raise UsageError(
            f"{option} {in_short(text)} is not accepted; give {numbers.accepted}, such as 0.485,0.456,0.406"
        )
    return values


def parse_channel_order(text: str, *, option: str) -> ChannelOrder:
    """Channel order from its name as given to ``option``.

    Raises:
        UsageError: neither ``rgb`` nor ``bgr``.
    """
    for order in ChannelOrder:
        if text.lower() == order.value:
            return order
    raise UsageError(f"{option} {text!r} is not accepted; give rgb or bgr")
