"""Build a :class:`~edgeprune.artifacts.calibration.CalibrationSet` from a source of images."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgeprune import limits
from edgeprune.artifacts.calibration import CalibrationSet, ImageBatch, Preprocessing
from edgeprune.artifacts.choices import Task
from edgeprune.artifacts.model import InputShapes, shape_words
from edgeprune.artifacts.truth import ImageTruth, Truth
from edgeprune.calibration.advice import Observed, advice
from edgeprune.calibration.annotations.placing import joined, placed
from edgeprune.calibration.fingerprint import fingerprint, image_digest
from edgeprune.calibration.geometry import Geometry, place
from edgeprune.calibration.limits import check_memory
from edgeprune.calibration.preprocess import convert_channels, preprocess
from edgeprune.calibration.sources.opening import open_source
from edgeprune.calibration.sources.source import ImageSource, RawImage, ReadOptions
from edgeprune.calibration.split import draw, held_out_count, without_copies
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.notes import Fact, tell
from edgeprune.options.cards import check_preprocessing, find_card, read_card, shown_size
from edgeprune.system import progress

_log = logging.getLogger("edgeprune.calibration")
_FLOAT32_BYTES = 4

Label = TypeVar("Label", int, ImageTruth)


def load_calibration(
    source: str | Path | Dataset[Any],
    *,
    labels: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    held_out_fraction: float = 0.25,
    max_images: int | None = None,
    seed: int = 0,
    input_shape: tuple[int | None, ...] | None = None,
    task: Task = Task.AUTO,
    input_names: tuple[str, ...] = (),
) -> CalibrationSet:
    """Read images, preprocess them and hold a part out; the same arguments give the same set.

    Args:
        source: folder of images (sub-folders are classes, numbered in alphabetical order), ``.npz`` with
            ``images`` and optionally ``labels``, ``package.module:function`` or a torch Dataset.
        labels: CSV file with the header ``file,label`` for a folder; by itself ``labels.csv`` in a folder
            without sub-folders of classes, or beside it. For a task other than classification those of
            :func:`~edgeprune.calibration.annotations.annotated.open_annotated`.
        preprocessing: ``None`` takes the card beside the data, else leaves the images as they are: float
            tensors of a Dataset unchanged, pixels scaled to [0, 1].
        held_out_fraction: share of the images held out, stratified by class.
        max_images: largest number of images used, sampled with ``seed``.
        input_shape: the model's (channels, height, width), where known; ``None`` for a size that is not.
        task: decides what labels are.
        input_names: of a model of several inputs, for which an item is read, in their order.

    Raises:
        CalibrationError: the data are missing, empty, damaged or do not fit ``input_shape``.
        UsageError: a fraction, a number or a seed that is not accepted.
    """
    _check_options(held_out_fraction, max_images, seed)
    options = preprocessing if preprocessing is not None else _card_beside(source)
    check_preprocessing(options or Preprocessing())
    channels = _wanted_channels(options, input_shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # a Dataset and its transforms may draw random numbers
        reading_options = ReadOptions(channels=channels, task=task, inputs=input_names)
        opened = open_source(source, reading_options.with_preprocessing(options), labels)
        reading = _Reading(
            source=opened,
            options=options,
            channels=channels,
            input_shape=input_shape,
            observed=Observed(from_files=opened.from_files),
        )
        _read(reading, max_images, seed)
    return _finish(reading, held_out_fraction, seed)


def _read(reading: _Reading, max_images: int | None, seed: int) -> None:
    opened = reading.source
    if opened.count < 2:
        raise CalibrationError(
            f"{opened.text!r} has {opened.count} images; at least 2 are needed, one to fit and one to judge, "
            "and a few hundred are advisable"
        )
    chosen = list(range(opened.count))
    if max_images is not None and max_images < opened.count:
        chosen = draw(max_images, opened.count, opened.labels, np.random.default_rng([seed, 0]))
    with progress.task("reading images", len(chosen)) as advance:
        for index in chosen:
            reading.add(index, len(chosen))
            advance(1)


def _check_options(held_out_fraction: float, max_images: int | None, seed: int) -> None:
    limits.HELD_OUT.check("--held-out", held_out_fraction)
    limits.SEED.check("--seed", seed)
    if max_images is not None and max_images < 2:
        raise UsageError(f"--max-images {max_images} was given; at least 2 are needed, to fit and to judge")


def _card_beside(source: object) -> Preprocessing | None:
    card = find_card(Path(source).expanduser()) if isinstance(source, (str, Path)) else None
    return None if card is None else read_card(card).preprocessing


def _wanted_channels(options: Preprocessing | None, input_shape: tuple[int | None, ...] | None) -> int | None:
    known = () if input_shape is None else tuple(size for size in input_shape if size is not None)
    if input_shape is not None and (len(input_shape) != 3 or min(known, default=1) < 1):
        raise CalibrationError(
            f"the model takes an input of shape {input_shape}, which is no image; accepted is (channels, "
            "height, width)"
        )
    if input_shape is not None and input_shape[0] is not None:
        return input_shape[0]
    several = [len(v) for v in (options.mean, options.std) if v and len(v) > 1] if options else []
    return several[0] if several else None


@dataclass(kw_only=True)
class _Reading:
    """Images read so far; of the pixels before preprocessing only digests are kept."""

    source: ImageSource
    options: Preprocessing | None
    channels: int | None
    input_shape: tuple[int | None, ...] | None
    observed: Observed
    images: list[Tensor] = field(default_factory=list)
    store: Tensor = field(default_factory=lambda: torch.empty(0))
    labels: list[int | None] = field(default_factory=list)
    truths: list[ImageTruth | None] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    first_name: str = ""
    joins: InputShapes = ()
    pictured: tuple[bool, ...] = ()

    def add(self, index: int, expected: int) -> None:
        """Read, check and preprocess one image."""
        raw = self.source.read(index)
        name = self.source.name_of(index)
        several = bool(raw.further)
        if several and self.input_shape is not None:
            raise CalibrationError(
                f"{name} has {1 + len(raw.further)} inputs, but the model takes one image of "
                f"{shape_words(tuple(size or 0 for size in self.input_shape))}; give images alone"
            )
        if self.images and several != bool(self.joins):
            raise CalibrationError(
                f"{name} has {1 + len(raw.further)} inputs and those before another number; make all alike"
            )
        image, geometry = self._input(raw, name, None if several else self.channels)
        if several:
            rest = [self._input(each, name, None)[0] for each in raw.further]
            image = self._joined([image, *rest], tuple(each.is_image for each in (raw, *raw.further)), name)
        options = self.options or Preprocessing()
        self.truths.append(None if raw.truth is None else placed(raw.truth, options, geometry, name))
        if not self.images:
            self.first_name = name
            self._check_first(image, expected)
        elif not self._fits_first(image):
            raise self._differs(image, name)
        self._remember(raw, image)

    def _input(self, raw: RawImage, name: str, channels: int | None) -> tuple[Tensor, Geometry]:
        """The input of an image, and where the image lies in it; numbers stay as they are."""
        if not raw.is_image:
            return raw.pixels, Geometry((1, 1), (1, 1), (1, 1))
        options = self.options or Preprocessing()
        image = preprocess(raw.pixels, options, channels=channels, where=name)
        height, width = raw.pixels.shape[1:]
        geometry = place((height, width), options, name)
        self.observed.add(raw, geometry, image.shape[0], name)
        return image, geometry

    def _joined(self, inputs: list[Tensor], pictured: tuple[bool, ...], name: str) -> Tensor:
        """All values of several inputs in one row; every item has the same shapes."""
        shapes = tuple(tuple(each.shape) for each in inputs)
        if not self.joins:
            self.joins, self.pictured = shapes, pictured
        if shapes != self.joins:
            raise CalibrationError(
                f"the inputs differ in shape: those before are {shape_words(self.joins)} and those of {name} "
                f"{shape_words(shapes)}; make them alike"
            )
        return torch.cat([each.reshape(-1) for each in inputs])

    def _remember(self, raw: RawImage, image: Tensor) -> None:
        self.digests.append(b"".join(image_digest(each.pixels) for each in (raw, *raw.further)))
        self.labels.append(raw.label)
        position = len(self.images)
        if image.shape == self.store.shape[1:]:
            self.images.append(self.store[position].copy_(image))
        else:
            self.images.append(image)  # grey among colour: all are converted at the end

    def _check_first(self, image: Tensor, expected: int) -> None:
        shape = tuple(image.shape)
        wanted = shape if self.input_shape is None else tuple(self.input_shape)
        if any(size not in (None, own) for size, own in zip(wanted, shape, strict=True)):
            raise CalibrationError(
                f"the images are {shape} after preprocessing, but the model takes "
                f"({', '.join('any' if size is None else str(size) for size in wanted)}) (channels, height, "
                f"width); {_remedy(shape, wanted)}"
            )
        needed_bytes = expected * image.numel() * _FLOAT32_BYTES
        _log.info("%d images %s take %.0f MiB", expected, shape, needed_bytes / 2**20)
        check_memory(needed_bytes, len_text=f"{expected} images of shape {shape}")
        self.store = torch.empty((expected, *shape))

    def _fits_first(self, image: Tensor) -> bool:
        first = self.images[0].shape
        grey_among_colour = self.channels is None and {first[0], image.shape[0]} == {1, 3}
        return image.shape[1:] == first[1:] and (image.shape[0] == first[0] or grey_among_colour)

    def _differs(self, image: Tensor, name: str) -> CalibrationError:
        alike = image.shape[1:] == self.images[0].shape[1:]
        remedy = (
            "convert them to one kind"
            if alike
            else "give --resize and --crop, or --letterbox, to make them alike"
        )
        return CalibrationError(
            f"the images differ in shape: {self.first_name} is {tuple(self.images[0].shape)} and {name} is "
            f"{tuple(image.shape)} (channels, height, width); {remedy}"
        )


def _remedy(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    if wanted[0] not in (None, shape[0]):
        return f"give images with {wanted[0]} channels"
    height, width = (size or own for size, own in zip(wanted[1:], shape[1:], strict=True))
    size = shown_size((height, width))
    sizes = (
        f"--resize {height} --crop {height}" if height == width else f"--resize {size} or --letterbox {size}"
    )
    return f"give {sizes}, or --input-shape {shape_words(shape)} if the model takes that size too"


def _finish(reading: _Reading, held_out_fraction: float, seed: int) -> CalibrationSet:
    labels = _all_or_none(reading.labels, reading.source.text)
    truths = _all_or_none(reading.truths, reading.source.text)
    channels_seen = {image.shape[0] for image in reading.images}
    if len(channels_seen) > 1:
        reading.observed.become_colour([image.shape[0] == 1 for image in reading.images])
        reading.store = torch.stack([convert_channels(image, 3) for image in reading.images])
        reading.images[:] = list(reading.store)
    options = reading.options or Preprocessing()
    notes = [
        *reading.source.notes,
        *reading.observed.notes(reading.images[0].shape[0], options),
        *_how_read(reading),
        *advice(reading.digests, labels, reading.observed.constant),
    ]
    for note in notes:
        tell(_log, note)
    source = reading.source
    total = len(reading.images)
    rng = np.random.default_rng([seed, 1])
    kept_back = draw(held_out_count(total, held_out_fraction), total, labels, rng)
    rest = sorted(set(range(total)) - set(kept_back))
    kept_back, copies = without_copies(kept_back, rest, reading.digests)
    if copies:
        notes.append(
            f"{len(copies)} held-out images are copies of others and do not count: {len(kept_back)} judge"
        )
        _log.warning("%s", notes[-1])
    # Shuffled, so that the first few images of a part represent all classes.
    parts = [[part[int(i)] for i in rng.permutation(len(part))] for part in (rest, kept_back)]
    reading.images.clear()
    put_in_order(reading.store, [index for part in (*parts, copies) for index in part])
    stored = torch.split(reading.store, [*map(len, parts), len(copies)])[:2]
    fitting, held_out = (
        ImageBatch(
            images=own,
            labels=_labels_of(labels, part),
            truth=_truth_of(truths, part, source.text),
            joins=reading.joins,
        )
        for own, part in zip(stored, parts, strict=True)
    )
    return CalibrationSet(
        fitting=fitting,
        held_out=held_out,
        preprocessing=options,
        source=source.text,
        fingerprint_sha256=fingerprint(reading.digests, labels, options, truths),
        class_names=source.class_names if labels is not None or truths is not None else None,
        warnings=tuple(notes),
    )


def _how_read(reading: _Reading) -> list[str]:
    """Which of several inputs were taken for images, since only those are preprocessed."""
    if not reading.joins:
        return []
    told = (
        f"{'image' if pictured else 'numbers as they are'} {shape_words(shape)}"
        for shape, pictured in zip(reading.joins, reading.pictured, strict=True)
    )
    return [Fact(f"the inputs of an item were read as: {', '.join(told)}")]


def _all_or_none(labels: list[Label | None], where: str) -> list[Label] | None:
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise CalibrationError(
            f"{len(known)} of the {len(labels)} images of {where!r} have labels; accepted are labels for all "
            "or for none"
        )
    return known or None


def put_in_order(store: Tensor, order: list[int]) -> None:
    """Permute images (n, ...) in place: afterwards ``store[k]`` is what ``store[order[k]]`` was.

    In place, since images dominate the memory use and a second copy would double it.
    """
    done = [False] * len(order)
    for start in range(len(order)):
        if done[start]:
            continue
        first, place = store[start].clone(), start
        while not done[place]:
            done[place] = True
            source = order[place]
            store[place].copy_(first if source == start else store[source])
            place = source


def _truth_of(truths: list[ImageTruth] | None, indices: list[int], where: str) -> Truth | None:
    return None if truths is None else joined([truths[i] for i in indices], where)


def _labels_of(labels: list[int] | None, indices: list[int]) -> Tensor | None:
    return None if labels is None else torch.tensor([labels[i] for i in indices], dtype=torch.int64)
