"""Pictures of a run: what its filters see, what its answers rest on, and where they changed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A small image as PNG; ``caption`` says in words what it shows."""

    png: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class FilterMaps:
    """What one filter makes of several images: ``maps`` in the order of the images."""

    channel: int
    value: float
    removed: bool
    maps: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class FeatureMaps:
    """Feature maps of the highest- and the lowest-valued filters of a layer, on the same images."""

    layer: str
    filters: int
    images: tuple[Picture, ...]
    highest: tuple[FilterMaps, ...]
    lowest: tuple[FilterMaps, ...]


@dataclass(frozen=True, kw_only=True)
class SaliencyMaps:
    """Which pixels the score of the original's answer depends on, in both networks."""

    image: Picture
    original: Picture
    compressed: Picture


@dataclass(frozen=True, kw_only=True)
class ChangedAnswer:
    """A held-out image that the delivered network answers otherwise; ``label`` where it is known.

    Where an answer can be drawn, ``pictures`` are those of the original and of the delivered network.
    """

    pictures: tuple[Picture, ...]
    before: str
    after: str
    label: str | None


@dataclass(frozen=True, kw_only=True)
class Illustrations:
    """All pictures of a run. ``missing`` says of every kind that is not there why, by its field's name.

    ``changed_images`` of ``held_out_images`` changed their answer; ``changed`` shows the first of them.
    """

    feature_maps: FeatureMaps | None = None
    saliency: tuple[SaliencyMaps, ...] = ()
    changed: tuple[ChangedAnswer, ...] = ()
    changed_images: int = 0
    held_out_images: int = 0
    missing: dict[str, str]
