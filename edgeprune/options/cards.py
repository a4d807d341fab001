"""Preprocessing cards: small TOML files that say how images become a model's input."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

from edgeprune import limits
from edgeprune.artifacts.calibration import ChannelOrder, Preprocessing
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.options.accepted import Deviations, Means, Pixels, per_channel
from edgeprune.showing import did_you_mean, in_short
from edgeprune.storage.documents import UnreadableError, read_toml
from edgeprune.storage.tables import TableError, from_table
from edgeprune.system.data import data_dir

FOLDER_CARD_NAME = "card.toml"


@dataclass(frozen=True, kw_only=True)
class _CardTable:
    """A card file as it is."""

    name: str | None = None
    description: str = ""
    source: str = ""
    licence: str = ""
    resize: Pixels | None = None
    crop: Pixels | None = None
    mean: Means | None = None
    std: Deviations | None = None
    channel_order: ChannelOrder = ChannelOrder.RGB


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """Preprocessing as asked for; ``None`` leaves a value to the card, or to the card beside the data."""

    card: str | None = None
    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: ChannelOrder | None = None


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
    preprocessing = Preprocessing(
        resize=card.resize,
        crop=card.crop,
        mean=per_channel(card.mean),
        std=per_channel(card.std),
        channel_order=card.channel_order,
    )
    texts = {"description": card.description, "source": card.source, "licence": card.licence}
    return Card(path=file, preprocessing=preprocessing, name=card.name or file.stem, **texts)


def merge_preprocessing(card: Preprocessing | None, asked: PreprocessingOptions) -> Preprocessing:
    """Merge options into a card: every option that is not ``None`` replaces the card's value."""
    changes = {field.name: getattr(asked, field.name) for field in fields(Preprocessing)}
    return replace(card or Preprocessing(), **{k: v for k, v in changes.items() if v is not None})


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
