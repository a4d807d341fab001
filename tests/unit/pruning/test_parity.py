"""Neighbours that agree pass; a tampered one is found, named, and raised."""

from __future__ import annotations

import math
from pathlib import Path

import networks as nets
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeprune import parity
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.report import Verdict
from edgeprune.errors import ParityError, ProfileError
from edgeprune.intervals import wilson_interval
from edgeprune.parity import (
    accuracy,
    accuracy_kind,
    compare,
    is_classifier,
    points_lost,
    require,
    run_onnx,
    run_torch,
)
from edgeprune.pruning.surgery import prune

NAMES = ("original", "pruned")
SCORES = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)


def against(candidate: np.ndarray, tolerance: float = 1e-4):
    return compare([SCORES], [candidate.astype(np.float32)], names=NAMES, tolerance=tolerance)


def onnx_linear(path: Path, weight: np.ndarray, rows: int | str = "batch") -> Path:
    inputs, outputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inputs, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outputs])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path


def test_equal_outputs_pass():
    figure = against(SCORES.copy())
    assert figure.verdict is Verdict.PASSED
    assert (figure.max_abs_error, figure.relative_error, figure.top1_agreement) == (0.0, 0.0, 1.0)
    assert figure.cosine == pytest.approx(1.0)
    assert figure.images == 20
    require((figure, figure))


def test_figures_are_their_definitions():
    candidate = SCORES.copy()
    candidate[3, 2] += 0.5
    figure = against(candidate, tolerance=0.05)
    assert figure.max_abs_error == pytest.approx(0.5, rel=1e-6)
    assert figure.mean_abs_error == pytest.approx(0.5 / 100, rel=1e-6)
    assert figure.relative_error == pytest.approx(0.5 / np.abs(SCORES).max(), rel=1e-6)
    assert figure.cosine < 1.0
    assert (figure.reference, figure.candidate, figure.tolerance) == (*NAMES, 0.05)


def test_the_tolerance_decides():
    candidate = SCORES + 1e-3 * np.abs(SCORES).max()
    assert against(candidate, tolerance=1.1e-3).verdict is Verdict.PASSED
    assert against(candidate, tolerance=0.9e-3).verdict is Verdict.FAILED


def test_top1_agreement_counts_images():
    candidate = SCORES.copy()
    candidate[:5] = -candidate[:5]
    assert against(candidate).top1_agreement == 0.75


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_no_numbers_fail(value):
    candidate = SCORES.copy()
    candidate[0, 0] = value
    figure = against(candidate)
    assert figure.verdict is Verdict.FAILED
    assert figure.max_abs_error == figure.relative_error == math.inf
    with pytest.raises(ParityError, match="pruned differs from original"):
        require((figure,))


def test_outputs_that_are_all_zero_are_compared_absolutely():
    zeros = [np.zeros((4, 3), dtype=np.float32)]
    assert compare(zeros, zeros, names=NAMES, tolerance=1e-4).verdict is Verdict.PASSED
    ones = [np.ones((4, 3), dtype=np.float32)]
    assert compare(zeros, ones, names=NAMES, tolerance=1e-4).verdict is Verdict.FAILED


@pytest.mark.parametrize("candidate", [[SCORES[:, :4]], [SCORES, SCORES], []])
def test_outputs_of_other_shapes_are_refused(candidate):
    with pytest.raises(ParityError, match=r"pruned gives outputs of shape .* where original gives"):
        compare([SCORES], candidate, names=NAMES, tolerance=1e-4)


def test_require_names_the_first_pair_that_disagrees():
    good, bad = against(SCORES), against(SCORES + 1)
    with pytest.raises(ParityError, match=r"pruned differs from original by \d.* accepted is 1e-04"):
        require((good, bad, good))
    require(())


def test_a_tampered_pruned_network_is_found():
    case = nets.toy(nets.residual_add)
    removed = case.removals()[-1]
    masked = [t.numpy() for t in nets.masked_outputs(case, [removed])[0]]
    pruned = prune(case.captured, case.coupling, removed)
    honest = compare(masked, run_torch(pruned, case.images), names=NAMES, tolerance=1e-6)
    require((honest,))
    pruned.get_parameter("first.0.weight").data[0, 0, 1, 1] += 0.5
    tampered = compare(masked, run_torch(pruned, case.images), names=NAMES, tolerance=1e-6)
    with pytest.raises(ParityError, match="the stage between them is wrong"):
        require((tampered,))


def test_a_tampered_onnx_file_is_found(tmp_path):
    weight = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    images = torch.randn(10, 6, 1, 1)
    reference = run_torch(lambda x: x.flatten(1) @ torch.from_numpy(weight), images)
    good = run_onnx(onnx_linear(tmp_path / "good.onnx", weight), images, threads=1)
    require((compare(reference, good, names=("recovered", "onnx"), tolerance=1e-5),))
    weight[2, 1] *= 1.01
    bad = run_onnx(onnx_linear(tmp_path / "bad.onnx", weight), images, threads=1)
    with pytest.raises(ParityError, match="onnx differs from recovered"):
        require((compare(reference, bad, names=("recovered", "onnx"), tolerance=1e-5),))


@pytest.mark.parametrize("rows", ["batch", 1, 4, 7, 16])
def test_onnx_files_with_any_batch_size_give_every_image_once(tmp_path, rows):
    weight = np.eye(3, dtype=np.float32)
    images = torch.randn(10, 3, 1, 1)
    (got,) = run_onnx(onnx_linear(tmp_path / "m.onnx", weight, rows), images, threads=1, batch=4)
    np.testing.assert_allclose(got, images.flatten(1).numpy(), rtol=1e-6)


def test_a_file_that_is_no_onnx_is_one_sentence(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ProfileError, match=r"onnxruntime could not run broken\.onnx"):
        run_onnx(path, torch.randn(1, 3, 1, 1), threads=1)


def test_onnx_with_another_input_shape_is_one_sentence(tmp_path):
    path = onnx_linear(tmp_path / "m.onnx", np.eye(3))
    with pytest.raises(ProfileError, match=r"could not run m\.onnx"):
        run_onnx(path, torch.randn(2, 4, 1, 1), threads=1)


def test_torch_outputs_in_batches_are_those_of_the_whole():
    images = torch.randn(10, 3)
    whole = run_torch(lambda x: (x * 2, {"b": x.sum(1)}), images, batch=64)
    parts = run_torch(lambda x: (x * 2, {"b": x.sum(1)}), images, batch=3)
    assert [a.shape for a in whole] == [(10, 3), (10,)]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_quality_can_be_measured():
    assert is_classifier([SCORES])
    assert not is_classifier([SCORES[:, :1]])
    assert not is_classifier([SCORES, SCORES])
    assert accuracy_kind([SCORES], labelled=True) is AccuracyKind.TOP1
    assert accuracy_kind([SCORES], labelled=False) is AccuracyKind.AGREEMENT
    assert accuracy_kind([SCORES[:, :, None]], labelled=True) is AccuracyKind.RELATIVE_ERROR


def test_accuracy_against_labels_and_against_the_original():
    labels = SCORES.argmax(1)
    worse = SCORES.copy()
    worse[:4] *= -1
    top1 = accuracy("pruned", [worse], original=[SCORES], labels=labels, kind=AccuracyKind.TOP1)
    assert (top1.stage, top1.value, top1.images) == ("pruned", 0.8, 20)
    assert top1.low < 0.8 < top1.high
    wrong = (labels + 1) % 5
    agreement = accuracy("pruned", [worse], original=[SCORES], labels=wrong, kind=AccuracyKind.AGREEMENT)
    assert agreement.value == 0.8


def test_relative_error_of_outputs_that_are_no_classes():
    maps = np.random.default_rng(0).standard_normal((30, 2, 4, 4)).astype(np.float32)
    kind = AccuracyKind.RELATIVE_ERROR
    maps -= maps.mean(axis=0)
    half = accuracy("pruned", [0.5 * maps], original=[maps], labels=None, kind=kind)
    assert half.value == pytest.approx(0.25 * 29 / 30)  # of the spread, whose estimate has one image less
    same = accuracy("original", [maps], original=[maps], labels=None, kind=kind)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    # Newcombe 1998 (81 of 263), the others by hand from the formula of Wilson 1927.
    ("hits", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval(hits, count, low, high):
    assert wilson_interval(hits, count) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.parametrize("count", [1, 7, 400])
def test_wilson_interval_holds_the_share_and_stays_within_bounds(count):
    for hits in range(count + 1):
        low, high = wilson_interval(hits, count)
        assert 0.0 <= low <= hits / count <= high <= 1.0


def test_points_lost_count_what_can_be_judged():
    original = (np.eye(4, dtype=np.float32),)
    worse = (np.eye(4, dtype=np.float32)[[0, 1, 3, 2]],)
    assert points_lost(original, worse, None) == 50.0
    assert points_lost(original, worse, np.array([0, 1, 3, 2])) == -50.0
    fields = (np.ones((2, 1, 3, 3), dtype=np.float32),)
    assert points_lost(fields, (1.1 * fields[0],), None) == pytest.approx(1.0, rel=1e-3)


def test_large_images_run_a_few_at_a_time_and_small_ones_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations take many times the memory of images, so a batch is bounded by its bytes, too."""
    sizes: list[int] = []

    def counted(session: object, names: None, chunk: np.ndarray, timeout_s: float | None) -> list[np.ndarray]:
        sizes.append(len(chunk))
        return [session.run(names, {session.get_inputs()[0].name: chunk})[0]]  # type: ignore[attr-defined]

    monkeypatch.setattr(parity, "run_filled", counted)
    for values, expected in ((3 * 224 * 224, [6, 6, 1]), (3 * 32 * 32, [13])):
        weight = np.random.default_rng(0).standard_normal((values, 2)).astype(np.float32) / values
        images = torch.randn(13, values, 1, 1, generator=torch.Generator().manual_seed(0))
        (found,) = run_onnx(onnx_linear(tmp_path / f"{values}.onnx", weight), images, threads=1)
        assert sizes == expected
        np.testing.assert_allclose(found, images.flatten(1).numpy() @ weight, rtol=1e-3, atol=1e-5)
        sizes.clear()
