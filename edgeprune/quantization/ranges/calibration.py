"""What values flow through a 32-bit ONNX model, gathered image by image in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.artifacts.arrays import Advance, FloatArray
from edgeprune.errors import QuantizationError
from edgeprune.onnx_io.intermediate_outputs import tapped_session
from edgeprune.onnx_io.session import in_a_sentence, run_session
from edgeprune.quantization.preparation import FloatModel, bytes_per_image
from edgeprune.quantization.settings import IntegerSettings

BINS = 2048
MEMORY_LIMIT_BYTES = 64 * 2**20
_MOST_AT_ONCE = 32
_COUNTED_AT_ONCE = 2**16


@dataclass
class ChannelValues:
    """Least, greatest and mean value of every channel (c,) of an activation, over images and positions.

    ``last``: least and greatest along the last axis, where that may be the one of channels, too.
    """

    low: FloatArray
    high: FloatArray
    total: FloatArray
    count: int = 0
    last: tuple[FloatArray, FloatArray] | None = None

    @property
    def mean(self) -> FloatArray:
        """Of every channel (c,)."""
        return self.total / max(1, self.count)

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest value of all channels."""
        return float(self.low.min()), float(self.high.max())

    def scaled(self, factors: FloatArray) -> ChannelValues:
        """After every channel was multiplied by a positive factor (c,)."""
        return ChannelValues(
            low=self.low * factors,
            high=self.high * factors,
            total=self.total * factors,
            count=self.count,
        )


@dataclass
class Histogram:
    """How often values fall into ``BINS`` equal bins between ``low`` and ``high``."""

    low: float
    high: float
    counts: FloatArray = field(default_factory=lambda: np.zeros(BINS))

    @property
    def centres(self) -> FloatArray:
        """Middle of every bin."""
        width = (self.high - self.low) / BINS
        return np.asarray(self.low + width * (np.arange(BINS) + 0.5))

    def add(self, values: NDArray[np.float32], weights: FloatArray | None = None) -> None:
        """Count values, each by its weight if there are any; those beyond an end count in the bin there.

        In double precision, in which every range of 32-bit numbers has distinct bins: NumPy's own histograms
        calculate in that of the values and refuse a range too narrow for it.
        """
        if self.high <= self.low:
            return
        flat = values.reshape(-1)
        for start in range(0, flat.size, _COUNTED_AT_ONCE):
            part = flat[start : start + _COUNTED_AT_ONCE].astype(np.float64)
            places = np.clip((part - self.low) / (self.high - self.low) * BINS, 0, BINS - 1)
            of_part = None if weights is None else weights.reshape(-1)[start : start + _COUNTED_AT_ONCE]
            self.counts += np.bincount(places.astype(np.int64), weights=of_part, minlength=BINS)


def activations(model: FloatModel) -> list[str]:
    """Names of all float32 activations that nodes read or give, the input first."""
    named = {n for node in model.proto.graph.node for n in (*node.input, *node.output)}
    return [name for name in model.shapes if name in named]


def channel_values(
    model: FloatModel, images: Tensor, settings: IntegerSettings, advance: Advance = lambda _images: None
) -> dict[str, ChannelValues]:
    """Range and mean by channel (first dimension after the batch) of every activation, in one pass.

    Of activations (n, anchors, values) the ends along the last axis are kept, too.
    """
    names = activations(model)
    channels: dict[str, ChannelValues] = {}
    for values in _streamed(model, names, images, settings, advance):
        for name, value in zip(names, values, strict=True):
            by_channel = value.reshape(len(value), value.shape[1], -1)
            low, high = by_channel.min(axis=(0, 2)), by_channel.max(axis=(0, 2))
            total = by_channel.sum(axis=(0, 2), dtype=np.float64)
            count = by_channel.shape[0] * by_channel.shape[2]
            known = channels.setdefault(
                name,
                ChannelValues(low=low.astype(float), high=high.astype(float), total=np.zeros(len(low))),
            )
            known.low, known.high = np.minimum(known.low, low), np.maximum(known.high, high)
            known.total = known.total + total
            known.count += count
            if value.ndim == 3:
                known.last = _ends(known.last, value.min(axis=(0, 1)), value.max(axis=(0, 1)))
    _check_finite(channels)
    return channels


def _ends(
    known: tuple[FloatArray, FloatArray] | None, low: NDArray[np.float32], high: NDArray[np.float32]
) -> tuple[FloatArray, FloatArray]:
    """Ends so far, widened by those of another batch."""
    if known is None:
        return low.astype(float), high.astype(float)
    return np.minimum(known[0], low), np.maximum(known[1], high)


def histograms(
    model: FloatModel,
    ranges: dict[str, tuple[float, float]],
    images: Tensor,
    settings: IntegerSettings,
    advance: Advance = lambda _images: None,
) -> dict[str, Histogram]:
    """Histograms of the activations over their known ranges, in one more pass."""
    names = list(ranges)
    counted = {name: Histogram(low=low, high=high) for name, (low, high) in ranges.items()}
    for values in _streamed(model, names, images, settings, advance):
        for name, value in zip(names, values, strict=True):
            if not np.isfinite(value).all():
                raise _not_finite(name)
            counted[name].add(value)
    return counted


def _streamed(
    model: FloatModel,
    names: list[str],
    images: Tensor,
    settings: IntegerSettings,
    advance: Advance,
) -> Iterator[list[NDArray[np.float32]]]:
    """Values of the activations, a few images at a time: as many as the memory allows."""
    wanted = [name for name in names if name != model.input_name]
    session = _session(model, wanted, settings)
    room = MEMORY_LIMIT_BYTES // max(1, bytes_per_image(model.shapes, names))
    at_once = int(min(_MOST_AT_ONCE, max(1, room)))
    size = session.get_inputs()[0].shape[0]
    fixed = size if isinstance(size, int) and size > 0 else None
    if fixed is not None:
        at_once = fixed
        if len(images) < fixed:
            raise QuantizationError(
                f"the model takes batches of {fixed} and {len(images)} images are there to fit with; give "
                "more calibration images, or export it with a dynamic batch"
            )
    for start in range(0, len(images), at_once):
        batch = images[start : start + at_once].numpy()
        if fixed is not None and len(batch) < fixed:
            return  # what does not fill a batch is left out, since made-up images would count
        given = _given(session, model, names, wanted, batch, settings.timeout_s)
        yield given
        given.clear()  # or what was seen would stay while the next is calculated
        advance(len(batch))


def _given(
    session: onnxruntime.InferenceSession,
    model: FloatModel,
    names: list[str],
    wanted: list[str],
    batch: NDArray[np.float32],
    timeout_s: float | None,
) -> list[NDArray[np.float32]]:
    """Values of the activations on a batch, each of the shape that the file tells."""
    with _told("run"):
        outputs = iter(run_session(session, wanted, {model.input_name: batch}, timeout_s=timeout_s))
    given = [batch if name == model.input_name else np.asarray(next(outputs)) for name in names]
    for name, value in zip(names, given, strict=True):
        if value.shape[1:] != model.shapes[name] or not value.size:
            raise QuantizationError(
                f"the activation {name!r} has the shape {value.shape[1:]} for an image where the file says "
                f"{model.shapes[name]}; accepted are models whose shapes are as the file says"
            )
    return given


def _session(model: FloatModel, names: list[str], settings: IntegerSettings) -> onnxruntime.InferenceSession:
    """Of the model with these activations as outputs."""
    with _told("load"):
        return tapped_session(model.proto, names, settings.threads, timeout_s=settings.timeout_s)


def _told(doing: str) -> AbstractContextManager[None]:
    def sentence(reason: str) -> str:
        return f"onnxruntime cannot {doing} the model ({reason}); accepted are models for its CPU provider"

    return in_a_sentence(QuantizationError, sentence)


def _check_finite(channels: dict[str, ChannelValues]) -> None:
    for name, values in channels.items():
        if not (np.isfinite(values.low).all() and np.isfinite(values.high).all()):
            raise _not_finite(name)


def _not_finite(name: str) -> QuantizationError:
    return QuantizationError(
        f"the activation {name!r} has NaN or infinite values on the calibration images; accepted are "
        "models with finite activations: check the weights and the preprocessing"
    )
