"""A strided convolution of the image over blocks of pixels: the same bits, and others stay as they are."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from example_counts import examples
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx_models import written
from torch import nn

from edgeprune import parity
from edgeprune.artifacts.quantization import IntegerFormat, IntegerReport
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.targets import list_targets, load_target

PLAIN = IntegerFormat(signed_activations=False, reduce_range=False, reason="a test")


def both(module: nn.Module, folder: Path, shape: tuple[int, ...]) -> tuple[IntegerReport, Path, Path]:
    """The report of the file over blocks, and the files without and with."""
    source = written(module, folder / "source.onnx", shape)
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    plain, blocks = folder / "plain.onnx", folder / "blocks.onnx"
    quantize_integers(source, plain, images, IntegerSettings(form=PLAIN))
    report = quantize_integers(
        source, blocks, images, IntegerSettings(form=replace(PLAIN, pixel_blocks=True))
    )
    return report, plain, blocks


def ops(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


@given(data=st.data())
@settings(max_examples=examples(12), deadline=None)
def test_the_result_is_the_same_to_the_bit(data: st.DataObject) -> None:
    stride, channels = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 4))
    kernel = [data.draw(st.integers(2, 8)) for _ in range(2)]
    pads = [data.draw(st.integers(0, k - 1)) for k in kernel]
    size = [stride * data.draw(st.integers(3, 6)) for _ in range(2)]
    assume(all(n + 2 * p >= k for n, p, k in zip(size, pads, kernel, strict=True)))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(channels, 8, tuple(kernel), stride, tuple(pads)), nn.ReLU())
    with tempfile.TemporaryDirectory() as folder:
        report, plain, blocks = both(module, Path(folder), (channels, *size))
        images = torch.randn(3, channels, *size, generator=torch.Generator().manual_seed(1))
        first, second = (parity.run_onnx(path, images, threads=1)[0] for path in (plain, blocks))
        assert ("SpaceToDepth" in ops(blocks)) == bool(report.over_blocks)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(7, 2, 3), (3, 2, 1), (5, 2, 2), (4, 4, 0), (7, 4, 3)]
)
def test_usual_first_convolutions_are_put_over_blocks(
    tmp_path: Path, kernel: int, stride: int, padding: int
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, kernel, stride, padding), nn.ReLU(), nn.Conv2d(8, 8, 3))
    report, plain, blocks = both(module, tmp_path, (3, 32, 32))
    assert len(report.over_blocks) == 1
    assert ops(blocks).count("SpaceToDepth") == 1
    first = next(n for n in onnx.load(str(blocks)).graph.node if n.op_type == "Conv")
    assert next(list(a.ints) for a in first.attribute if a.name == "strides") == [1, 1]
    images = torch.randn(3, 3, 32, 32)
    found = [parity.run_onnx(path, images, threads=1)[0] for path in (plain, blocks)]
    np.testing.assert_array_equal(*found)


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(3, 8, 3, 2, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.one(x)) + torch.relu(self.two(x))


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (nn.Conv2d(3, 8, 3, 1, 1), 32),
        (nn.Conv2d(3, 8, 1, 2), 32),
        (nn.Conv2d(3, 8, 3, 2, 1), 33),
        (nn.Conv2d(3, 9, 3, 2, 1, groups=3), 32),
        (nn.Conv2d(3, 8, 3, 2, 1, dilation=2), 32),
        (nn.Conv2d(3, 8, 3, (2, 1), 1), 32),
        (nn.Conv2d(8, 8, 3, 2, 1), 32),
        (TwoReaders(), 32),
    ],
    ids=["no stride", "1x1", "odd size", "groups", "dilated", "two strides", "many channels", "two readers"],
)
def test_what_gains_nothing_stays_as_it_is(tmp_path: Path, module: nn.Module, size: int) -> None:
    conv = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    channels = conv.in_channels
    report, plain, blocks = both(nn.Sequential(module, nn.ReLU()), tmp_path, (channels, size, size))
    assert report.over_blocks == ()
    assert plain.read_bytes() == blocks.read_bytes()


def test_a_first_convolution_in_32_bits_stays_as_it_is(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3))
    source = written(module, tmp_path / "source.onnx", (3, 32, 32))
    first = next(n.name for n in onnx.load(str(source)).graph.node if n.op_type == "Conv")
    report = quantize_integers(
        source,
        tmp_path / "q.onnx",
        torch.randn(4, 3, 32, 32),
        IntegerSettings(form=replace(PLAIN, pixel_blocks=True)),
        frozenset({first}),
    )
    assert report.over_blocks == ()
    assert "SpaceToDepth" not in ops(tmp_path / "q.onnx")


def test_only_where_it_was_measured() -> None:
    forms = {name: integer_format(load_target(name)) for name in list_targets()}
    assert not any(form.pixel_blocks for name, form in forms.items() if name.startswith(("rpi", "jetson")))
    assert all("VNNI" in form.reason for form in forms.values() if form.pixel_blocks)
