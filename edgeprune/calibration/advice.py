"""Warnings about a set of calibration images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.calibration.geometry import Geometry
from edgeprune.calibration.preprocess import RANGE_SLACK
from edgeprune.calibration.sources.source import RawImage, StoredForm

FEW_IMAGES = 32
_SMALL_RANGE = 0.1
_UNBALANCED_RATIO = 10


def advice(digests: Sequence[bytes], labels: Sequence[int] | None, constant: Sequence[str]) -> list[str]:
    """Remarks on the number of images, their classes, copies, and images of a single value.

    ``constant`` are the names of the images whose pixels all have one value.
    """
    remarks = []
    if len(digests) < FEW_IMAGES:
        remarks.append(
            f"only {len(digests)} calibration images: every figure is rough; a few hundred are advisable"
        )
    remarks += _copies(digests, labels)
    if constant:
        remarks.append(f"{len(constant)} images have a single value everywhere, such as {constant[0]}")
    if labels is not None:
        remarks += _balance(labels)
    return remarks


@dataclass(kw_only=True)
class Observed:
    """What was seen of images while they were read: how they were stored, their values and sizes."""

    from_files: bool
    kinds: list[str | None] = field(default_factory=list)
    stored: Counter[StoredForm] = field(default_factory=Counter)
    constant: list[str] = field(default_factory=list)
    transformed: int = 0
    ranges: dict[StoredForm, tuple[float, float]] = field(default_factory=dict)
    enlarged: list[Geometry] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Images seen."""
        return len(self.kinds)

    @property
    def low(self) -> float:
        """The least value of all images, of [0, 1] for pixels."""
        return min(low for low, _ in self.ranges.values())

    @property
    def high(self) -> float:
        """The largest value of all images, of [0, 1] for pixels."""
        return max(high for _, high in self.ranges.values())

    def add(self, raw: RawImage, geometry: Geometry, channels: int, name: str) -> None:
        """Note an image that became ``channels`` channels."""
        low, high = float(raw.pixels.min()), float(raw.pixels.max())
        if low == high:
            self.constant.append(name)
        scale = 255.0 if raw.pixels.dtype == torch.uint8 else 1.0
        form = StoredForm(bits=raw.stored.bits, signed=raw.stored.signed)
        before = self.ranges.get(form, (math.inf, -math.inf))
        self.ranges[form] = min(before[0], low / scale), max(before[1], high / scale)
        self.transformed += raw.transformed
        self.stored[raw.stored] += 1
        given = raw.pixels.shape[0]
        kind = {1: "greyscale", 3: "RGB"}.get(given, f"{given}-channel")
        self.kinds.append(raw.stored.kind or (kind if given != channels else None))
        if max(geometry.scale) > 1:
            self.enlarged.append(geometry)

    def become_colour(self, grey: Sequence[bool]) -> None:
        """Note that the images that are ``grey`` among colour become colour, too."""
        self.kinds = [
            kind or ("greyscale" if turns else None) for kind, turns in zip(self.kinds, grey, strict=True)
        ]

    def notes(self, channels: int, options: Preprocessing) -> list[str]:
        """Remarks on conversions to ``channels`` channels, on sizes and on values."""
        return [
            *self._conversions(channels, options),
            *self._orientations(options),
            *self._enlargements(),
            *self._small_ranges(),
            *self._normalisation(options),
        ]

    def _conversions(self, channels: int, options: Preprocessing) -> list[str]:
        remarks = []
        kinds = Counter(kind for kind in self.kinds if kind is not None)
        if kinds:
            name = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
            given = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            remarks.append(
                f"{kinds.total()} of {self.total} images were converted to {name}, {channels} channel(s): "
                f"{given}"
            )
        if transparent := self._count(lambda stored: stored.transparent):
            remarks.append(
                f"{transparent} of {self.total} images have transparent parts, which were laid on "
                f"{options.ground.value} (--ground)"
            )
        if reduced := self._count(lambda stored: stored.reduced):
            remarks.append(
                f"{reduced} of {self.total} images have colours of 16 bits, of which the upper 8 were read"
            )
        return remarks

    def _count(self, holds: Callable[[StoredForm], bool]) -> int:
        return sum(count for stored, count in self.stored.items() if holds(stored))

    def _orientations(self, options: Preprocessing) -> list[str]:
        remarks = []
        if sideways := self._count(lambda stored: stored.orientation > 1):
            remarks.append(self._turned(sideways, options))
        if unreadable := self._count(lambda stored: stored.orientation == 0):
            remarks.append(
                f"{unreadable} of {self.total} images have an EXIF orientation that cannot be read; they "
                "were taken as they are stored"
            )
        return remarks

    def _turned(self, count: int, options: Preprocessing) -> str:
        if not self.from_files:
            return (
                f"{count} of {self.total} images have an EXIF orientation and were not turned: the Dataset "
                "decides"
            )
        if options.exif:
            return (
                f"{count} of {self.total} images were turned upright by their EXIF orientation; --no-exif "
                "leaves images as they are stored"
            )
        return f"{count} of {self.total} images have an EXIF orientation and were not turned (--no-exif)"

    def _enlargements(self) -> list[str]:
        if not self.enlarged:
            return []
        most = max(self.enlarged, key=lambda geometry: max(geometry.scale))
        (rows, columns), (height, width) = most.source, most.resized
        return [
            f"{len(self.enlarged)} of {self.total} images were enlarged by resizing, up to "
            f"{max(most.scale):.2g} times ({rows}x{columns} to {height}x{width} pixels); they are blurred, "
            "unlike images of that size"
        ]

    def _small_ranges(self) -> list[str]:
        """Remarks on pixels of which little more than black is left."""
        remarks = []
        for form, (low, high) in self.ranges.items():
            bits, whole = form.bits, form.largest
            is_pixels = low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK
            as_transformed = bits is None and self.transformed > 0
            if not is_pixels or as_transformed or high - low >= _SMALL_RANGE:
                continue
            sign = "signed " if form.signed else ""
            kind = "floating-point images" if bits is None else f"{sign}images of {bits} bits"
            least, most = (f"{v:.3g}" if whole is None else f"{v * whole:.0f}" for v in (low, high))
            remarks.append(
                f"the {kind} have only values from {least} to {most} of 0 to {whole or 1}, less than a tenth "
                "of the range; if they were stored with fewer bits, scale them beforehand"
            )
        return remarks

    def _normalisation(self, options: Preprocessing) -> list[str]:
        if (options.mean is None) != (options.std is None):
            given, missing = ("--std", "--mean") if options.mean is None else ("--mean", "--std")
            value = int(options.mean is not None)
            return [f"{given} was given without {missing}, which is taken as {value}"]
        if options.mean is not None or self.transformed == self.total:
            return []
        if self.low >= -RANGE_SLACK and self.high <= 1 + RANGE_SLACK:
            return [
                "no normalisation was given, the model gets pixels in [0, 1]; most models need --mean and "
                "--std or a --card (--mean 0 --std 1 says that this one does not)"
            ]
        return [
            f"the images have floating-point values from {self.low:g} to {self.high:g} and were taken as "
            "they are, without scaling or normalisation"
        ]


def _copies(digests: Sequence[bytes], labels: Sequence[int] | None) -> list[str]:
    copies = len(digests) - len(set(digests))
    if not copies:
        return []
    remarks = [f"{copies} of the {len(digests)} images are exact copies of others; they tell nothing new"]
    if labels is not None and len(set(zip(digests, labels, strict=True))) > len(set(digests)):
        remarks.append("some copies of an image have different labels; check the labels")
    return remarks


def _balance(labels: Sequence[int]) -> list[str]:
    counts = Counter(labels)
    if len(counts) == 1:
        return [
            f"all images are of a single class (label {labels[0]}): accuracy says little; if the folder is "
            "no class, name the folder that holds the images directly"
        ]
    (most, high), (least, low) = counts.most_common()[0], counts.most_common()[-1]
    if high >= _UNBALANCED_RATIO * low:
        return [f"the classes are strongly unbalanced: {high} images of label {most}, {low} of label {least}"]
    return []
