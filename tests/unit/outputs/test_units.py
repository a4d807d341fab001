"""Errors of outputs are counted channel by channel, whatever the units that are joined in a tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeprune import parity
from edgeprune.artifacts.report import Verdict
from edgeprune.outputs.units import channel_errors, relative_errors, units_of

LAYOUTS = {
    "(n, values, anchors)": lambda x: x,
    "(n, anchors, values)": lambda x: x.transpose(0, 2, 1),
    "(n, values, h, w)": lambda x: x.reshape(*x.shape[:2], SIDE, SIDE),
    "(n, h, w, values)": lambda x: x.reshape(*x.shape[:2], SIDE, SIDE).transpose(0, 2, 3, 1),
}


IMAGES = 12
SIDE = 7


def joined(scales: list[float], rng: np.random.Generator) -> np.ndarray:
    """Channels of these spreads around means of a few spreads at every position, (n, c, 49)."""
    values = rng.normal(
        rng.normal(0, 2, (1, len(scales), SIDE * SIDE)), 1.0, (IMAGES, len(scales), SIDE * SIDE)
    )
    return values * np.array(scales)[None, :, None]


@pytest.mark.parametrize("layout", LAYOUTS)
@given(
    boxes=st.integers(1, 6),
    scores=st.integers(1, 12),
    apart=st.floats(1.5, 7.0),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_scores_beside_pixels_count_as_much_as_the_pixels(
    layout: str, boxes: int, scores: int, apart: float, seed: int
) -> None:
    assume(boxes + scores != SIDE)  # a cube of values does not tell which axis has the channels
    rng, put = np.random.default_rng(seed), LAYOUTS[layout]
    plain = joined([10.0**apart] * boxes + [1.0] * scores, rng)
    reference = put(plain)
    units = [units_of(reference)]
    for first, last in ((0, boxes), (boxes, boxes + scores)):
        silent = plain.copy()
        silent[:, first:last] = plain[:, first:last].mean(axis=0, keepdims=True)
        error = float(relative_errors([reference], [put(silent)], units).mean())
        assert error == pytest.approx(0.5 * (IMAGES - 1) / IMAGES, rel=0.01)
        found = channel_errors(reference, put(silent), units[0])
        assert found.constant.tolist() == [first <= c < last for c in range(boxes + scores)]
        assert found.relative[first:last] == pytest.approx(np.sqrt((IMAGES - 1) / IMAGES), rel=0.01)


@pytest.mark.parametrize("channels", [1, 2, 3, 80])
@pytest.mark.parametrize("size", [(24, 24), (16, 24), (24, 16)])
@pytest.mark.parametrize("silent", ["columns", "rows"])
def test_columns_of_a_map_are_no_channels(channels: int, size: tuple[int, int], silent: str) -> None:
    """Objects in a part of the map: elsewhere it hardly moves, which makes no units of its columns."""
    rng = np.random.default_rng(channels)
    maps = rng.normal(size=(IMAGES, channels, *size))
    if silent == "columns":
        maps[..., size[1] // 2 :] *= 1e-3
    else:
        maps[:, :, size[0] // 2 :] *= 1e-3
    units = units_of(maps)
    assert units.axis == 1
    assert len(units.weights) == channels
    flat = maps.copy()
    flat[..., size[1] // 2 :] = flat[..., size[1] // 2 :].mean(axis=0)
    assert not channel_errors(maps, flat, units).constant.any()


@pytest.mark.parametrize("shape", [(13, 13, 255), (13, 13, 6), (12, 20, 6)])
def test_heads_with_their_channels_last_are_told_by_their_sizes(shape: tuple[int, int, int]) -> None:
    scales = np.where(np.arange(shape[-1]) < 4, 1e3, 1.0)
    values = np.random.default_rng(0).normal(size=(IMAGES, *shape)) * scales
    assert units_of(values).axis == 3


@given(seed=st.integers(0, 2**32 - 1), unit=st.floats(1e-6, 1e6), channels=st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_the_unit_of_an_output_does_not_matter_and_the_mean_is_an_error_of_one(
    seed: int, unit: float, channels: int
) -> None:
    rng = np.random.default_rng(seed)
    reference = joined([1.0] * channels, rng)
    other = reference + rng.normal(0, 0.1, reference.shape)
    plain = relative_errors([reference], [other], [units_of(reference)])
    scaled = relative_errors([reference * unit], [other * unit], [units_of(reference * unit)])
    np.testing.assert_allclose(plain, scaled, rtol=1e-9)
    means = np.broadcast_to(reference.mean(axis=0, keepdims=True), reference.shape)
    error = float(relative_errors([reference], [means], [units_of(reference)]).mean())
    assert error == pytest.approx((IMAGES - 1) / IMAGES)


def test_channels_that_hardly_move_do_not_outweigh_those_of_the_same_unit() -> None:
    """Classes that no image shows: their noise is no error of the size of a class that is there."""
    rng = np.random.default_rng(0)
    spreads = [1.0, 0.4, 0.1, 0.02, 0.004, 0.001]
    reference = joined(spreads, rng)
    noisy = reference.copy()
    noisy[:, -1] += rng.normal(0, 0.001, noisy[:, -1].shape)  # as large as that channel's own spread
    assert float(relative_errors([reference], [noisy], [units_of(reference)]).mean()) < 1e-3


def test_constant_channels_stay_finite_and_are_no_channels_that_became_constant() -> None:
    reference = np.zeros((6, 3, 4))
    reference[:, 1] = 5.0
    reference[:, 2] = np.random.default_rng(0).normal(size=(6, 4))
    reference = np.concatenate(
        [reference, np.broadcast_to(np.arange(4.0), (6, 1, 4))], 1
    )  # of the place alone
    units = units_of(reference)
    assert units.spread[[0, 1, 3]].tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(units.weights).all()
    found = channel_errors(reference, reference, units)
    assert not found.constant.any()
    assert not found.relative.any()
    moved = reference.copy()
    moved[:, 0] += 0.5
    assert float(relative_errors([reference], [moved], [units]).mean()) > 0.05


def test_single_values_and_outputs_that_are_no_numbers() -> None:
    reference = np.arange(5.0)
    units = units_of(reference)
    assert relative_errors([reference], [reference + 1], [units]) == pytest.approx([1 / 2.5] * 5)
    broken = np.array([0.0, 1.0, np.nan, 3.0, 4.0])
    assert np.isinf(channel_errors(reference, broken, units).relative).all()


@given(
    size=st.floats(1.0, 1e4),
    least=st.floats(1e-9, 1e-3),
    constants=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_rounding_of_a_large_constant_is_no_error_beside_a_channel_that_hardly_moves(
    size: float, least: float, constants: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    fixed = np.full((IMAGES, constants, SIDE * SIDE), size)
    moving = joined([least, 1.0], rng)
    values = np.concatenate([fixed, moving], axis=1)
    told = values * (1 + rng.normal(0, 6e-8, values.shape))  # what single precision leaves
    units = units_of(values)
    assert channel_errors(values, told, units).relative[:constants].max() < 1e-5
    wrong = values.copy()
    wrong[:, 0] *= 1.1
    assert channel_errors(values, wrong, units).relative[0] == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("pixels", [24.0, 640.0])
def test_parity_takes_rounding_for_what_it_is_and_an_error_of_small_scores_for_an_error(
    pixels: float,
) -> None:
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, pixels, (IMAGES, 4, SIDE * SIDE))
    scores = rng.uniform(0, 1, (IMAGES, 1, SIDE * SIDE))
    never = 3e-4 + rng.normal(0, 1e-9, (IMAGES, 1, SIDE * SIDE))  # a class that no image shows
    wanted = np.concatenate([boxes, scores, never], axis=1).astype(np.float32)
    names = ("the one", "the other")
    rounded = wanted + rng.normal(0, 1e-7, wanted.shape).astype(np.float32)
    assert parity.compare([wanted], [rounded], names=names, tolerance=1e-4).verdict is Verdict.PASSED
    wrong = wanted.copy()
    wrong[:, 4] *= 0.95
    figure = parity.compare([wanted], [wrong], names=names, tolerance=1e-2)
    assert figure.relative_error < 1e-2  # of the largest number, which is a pixel
    found = parity.compare([wanted], [wrong], names=names, tolerance=1e-4)
    assert found.verdict is Verdict.FAILED
    assert found.by_channel.worst[0].channel == 4
