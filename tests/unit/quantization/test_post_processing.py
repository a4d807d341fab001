"""What calculates with the outputs of the last layers stays in 32 bits; what only moves them need not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import written
from torch import Tensor, nn
from torch.nn import functional

from edgeprune import parity
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.post_processing import behind_last_layers
from edgeprune.quantization.preparation import load_float
from edgeprune.quantization.settings import IntegerSettings

SETTINGS = IntegerSettings(form=IntegerFormat(signed_activations=False, reduce_range=False, reason="a test"))
SIZE = 32


class Detector(nn.Module):
    """Boxes in pixels and scores in 0..1: decoded, joined, in either layout, from one head or two."""

    def __init__(self, layout: str, classes: int, stride: float, heads: int) -> None:
        super().__init__()
        self.layout, self.stride, self.classes = layout, stride, classes
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.head = nn.ModuleList(
            [nn.Conv2d(16, 4 + classes, 1)]
            if heads == 1
            else [nn.Conv2d(16, 4, 1), nn.Conv2d(16, classes, 1)]
        )

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        h = self.body(x)
        raw = torch.cat([head(h) for head in self.head], 1).flatten(2)
        boxes = functional.softplus(raw[:, :4]) * self.stride
        scores = raw[:, 4:].sigmoid()
        if self.layout == "apart":
            return boxes, scores
        both = torch.cat([boxes, scores], 1)
        return both if self.layout == "channels first" else both.transpose(1, 2)


@given(
    layout=st.sampled_from(["apart", "channels first", "channels last"]),
    classes=st.integers(1, 6),
    stride=st.sampled_from([4.0, 32.0, 640.0]),
    heads=st.sampled_from([1, 2]),
)
@settings(max_examples=examples(10), deadline=None)
def test_scores_are_kept_whatever_they_are_joined_with(
    tmp_path_factory: pytest.TempPathFactory, layout: str, classes: int, stride: float, heads: int
) -> None:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("detector")
    source = written(Detector(layout, classes, stride, heads), folder / "d.onnx", (3, SIZE, SIZE))
    images = torch.rand(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    report = quantize_integers(source, folder / "q.onnx", images, SETTINGS)
    assert report.nodes["Conv"] >= 3
    before, after = (parity.run_onnx(p, images, threads=1) for p in (source, folder / "q.onnx"))
    channels = parity.by_channel(before, after)
    assert channels.constant == 0
    assert channels.worst[0].relative_error < 0.25
    assert "Concat" not in report.nodes


class Mixed(nn.Module):
    """A single head whose outputs are of different units, without a node behind it."""

    def __init__(self, apart: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 32, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(32, 6, 1)
        with torch.no_grad():
            self.head.weight[:3] *= apart
            self.head.bias[:3] *= apart

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize(("apart", "layers"), [(1.0, 3), (3.0, 3), (200.0, 2), (1e5, 2)])
def test_a_head_of_mixed_units_stays_in_32_bits(tmp_path: Path, apart: float, layers: int) -> None:
    torch.manual_seed(0)
    source = written(Mixed(apart), tmp_path / "m.onnx", (3, SIZE, SIZE))
    images = torch.rand(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    report = quantize_integers(source, tmp_path / "q.onnx", images, SETTINGS)
    assert report.nodes["Conv"] == layers
    assert len(report.mixed_units) == 3 - layers
    assert all("different units: 3 of 6" in reason for reason in report.mixed_units.values())
    before, after = (parity.run_onnx(p, images, threads=1) for p in (source, tmp_path / "q.onnx"))
    assert parity.by_channel(before, after).worst[0].relative_error < 0.15


class Segmenter(nn.Module):
    """Scores that are resampled behind the last layer, which costs time: that stays in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.body(x), scale_factor=2.0, mode="nearest").flatten(2)


def test_what_moves_or_resamples_a_single_tensor_stays_in_8_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = written(Segmenter(), tmp_path / "s.onnx", (3, SIZE, SIZE))
    images = torch.rand(8, 3, SIZE, SIZE)
    behind = {node.op_type for node in behind_last_layers(load_float(source))}
    assert {"Resize", "Reshape"} <= behind
    report = quantize_integers(source, tmp_path / "q.onnx", images, SETTINGS)
    assert report.mixed_units == {}
    assert report.nodes["Resize"] == 1


class Expectation(nn.Module):
    """Sides of boxes as an expectation over bins, a product with few constants."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 64, 1))
        self.bins = nn.Conv2d(16, 1, 1, bias=False)
        with torch.no_grad():
            self.bins.weight[:] = torch.arange(16.0).reshape(1, 16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.body(x).reshape(-1, 4, 16, SIZE * SIZE // 4).transpose(1, 2).softmax(1)
        return self.bins(shares).squeeze(1) * 32


def test_the_expectation_over_bins_is_decoding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = written(Expectation(), tmp_path / "e.onnx", (3, SIZE, SIZE))
    images = torch.rand(8, 3, SIZE, SIZE)
    report = quantize_integers(source, tmp_path / "q.onnx", images, SETTINGS)
    assert report.nodes["Conv"] == 2
    before, after = (parity.run_onnx(p, images, threads=1)[0] for p in (source, tmp_path / "q.onnx"))
    assert np.abs(before - after).max() < 0.02 * np.abs(before).max()


@given(
    groups=st.sampled_from([1, 2, 3, 6]),
    each=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    bias=st.booleans(),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
)
@settings(max_examples=examples(12), deadline=None)
def test_transposed_convolutions_of_any_groups_are_right(
    tmp_path_factory: pytest.TempPathFactory,
    groups: int,
    each: tuple[int, int],
    bias: bool,
    kernel: int,
    stride: int,
) -> None:
    torch.manual_seed(0)
    ins, outs = groups * each[0], groups * each[1]
    module = nn.Sequential(
        nn.Conv2d(3, ins, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(ins, outs, kernel, stride, groups=groups, bias=bias),
        nn.ReLU(),
        nn.Conv2d(outs, 5, 1),
    )
    folder = tmp_path_factory.mktemp("transposed")
    source = written(module, folder / "t.onnx", (3, 16, 16))
    images = torch.rand(8, 3, 16, 16)
    quantize_integers(source, folder / "q.onnx", images, SETTINGS)
    before, after = (parity.run_onnx(p, images, threads=1)[0] for p in (source, folder / "q.onnx"))
    assert np.square(before - after).sum() < 0.01 * np.square(before - before.mean()).sum()
    assert onnx.load(str(folder / "q.onnx")).graph.output[0].name
