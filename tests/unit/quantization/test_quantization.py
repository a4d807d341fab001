"""8-bit files: ranges, equalization, corrected biases, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import IMAGE, Chain, badly_scaled, plain, written
from torch import nn

from edgeprune import parity
from edgeprune.artifacts.quantization import IntegerFormat, RangeMethod
from edgeprune.errors import QuantizationError
from edgeprune.fake_quant import rounded
from edgeprune.quantization.equalization import equalize, find_pairs
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.preparation import load_float
from edgeprune.quantization.ranges import calibration
from edgeprune.quantization.ranges.calibration import BINS, Histogram, channel_values, histograms
from edgeprune.quantization.ranges.choice import SquaredError, chosen_range
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.targets import list_targets, load_target

FORMAT = IntegerFormat(signed_activations=False, reduce_range=False, reason="a test")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(40, *IMAGE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return written(Chain(), tmp_path_factory.mktemp("chain") / "chain.onnx")


def outputs(path: Path, images: torch.Tensor) -> np.ndarray:
    return parity.run_onnx(path, images, threads=1)[0]


def error(path: Path, other: Path, images: torch.Tensor) -> float:
    a, b = outputs(path, images), outputs(other, images)
    return float(np.square(a - b).sum() / np.square(a - a.mean(0)).sum())


@given(
    counts=st.lists(st.floats(0, 1e3), min_size=4, max_size=40),
    low=st.floats(-50, 0),
    span=st.floats(0.01, 100),
    method=st.sampled_from(RangeMethod),
)
@settings(max_examples=60, deadline=None)
def test_ranges_lie_within_what_was_seen_and_hold_zero(
    counts: list[float], low: float, span: float, method: RangeMethod
) -> None:
    histogram = Histogram(low=low, high=low + span, counts=np.resize(counts, BINS))
    below, above = chosen_range(histogram, method)
    assert min(0.0, low) - 1e-9 <= below <= 0.0 <= above <= max(0.0, low + span) + 1e-9


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_least_squared_error_is_never_above_that_of_the_whole_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_t(2, size=20_000) * rng.choice([0.1, 1.0, 10.0])
    counts, edges = np.histogram(values, bins=BINS)
    histogram = Histogram(low=edges[0], high=edges[-1], counts=counts.astype(float))
    whole = chosen_range(histogram, RangeMethod.MINMAX)
    least = chosen_range(histogram, RangeMethod.MSE)
    assert SquaredError(histogram).of(least) <= SquaredError(histogram).of(whole)
    scale = (least[1] - least[0]) / 255
    clipped = (
        np.clip(np.round(values / scale), np.round(least[0] / scale), np.round(least[1] / scale)) * scale
    )
    assert np.square(clipped - values).sum() == pytest.approx(SquaredError(histogram).of(least), rel=0.1)


def test_a_percentile_leaves_out_what_is_rare() -> None:
    counts = np.ones(BINS)
    counts[-1] = 1e-3
    counts[:1024] = 1e4
    low, high = chosen_range(Histogram(low=0.0, high=1.0, counts=counts), RangeMethod.PERCENTILE)
    assert low == 0.0
    assert 0.5 <= high < 0.51


@pytest.mark.parametrize("room", [calibration.MEMORY_LIMIT_BYTES, 1])
def test_what_is_seen_is_what_flows(
    chain: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(calibration, "MEMORY_LIMIT_BYTES", room)
    model = load_float(chain)
    values = channel_values(model, images, IntegerSettings(form=FORMAT))
    entering = values[model.input_name]
    np.testing.assert_allclose(entering.low, images.amin((0, 2, 3)).double(), rtol=1e-6)
    np.testing.assert_allclose(entering.high, images.amax((0, 2, 3)).double(), rtol=1e-6)
    np.testing.assert_allclose(entering.mean, images.mean((0, 2, 3)).double(), atol=1e-6)
    final = outputs(chain, images)
    (name,) = (value.name for value in model.proto.graph.output)
    np.testing.assert_allclose(values[name].mean, final.mean(0), rtol=1e-4, atol=1e-5)
    found = histograms(model, {name: values[name].range}, images, IntegerSettings(form=FORMAT))[name]
    assert found.counts.sum() == final.size


@pytest.mark.parametrize(
    ("activation", "pairs"), [(nn.ReLU(), 2), (nn.LeakyReLU(0.1), 2), (nn.ReLU6(), 0), (nn.SiLU(), 0)]
)
def test_equalizing_changes_no_output(
    tmp_path: Path, images: torch.Tensor, activation: nn.Module, pairs: int
) -> None:
    torch.manual_seed(0)
    path = written(badly_scaled(Chain(activation)), tmp_path / "chain.onnx")
    model = load_float(path)
    values = channel_values(model, images, IntegerSettings(form=FORMAT))
    equal, predicted, count = equalize(model, values)
    assert count == pairs == len(find_pairs(model))
    onnx.save(equal.proto, str(tmp_path / "equal.onnx"))
    assert error(path, tmp_path / "equal.onnx", images) < 1e-10
    seen = channel_values(equal, images, IntegerSettings(form=FORMAT))
    for name, found in seen.items():
        np.testing.assert_allclose(predicted[name].high, found.high, rtol=1e-3, atol=1e-4)
    if pairs:
        spans = [np.ptp(np.log(np.maximum(v["relu"].high, 1e-9))) for v in (values, seen) if "relu" in v]
        assert not spans or spans[-1] < spans[0]


def test_a_tensor_that_two_nodes_read_is_left_alone(tmp_path: Path) -> None:
    class Twice(Chain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x))
            return self.head(self.last(x + self.deep(x)).mean((2, 3)))

    model = load_float(written(Twice(), tmp_path / "twice.onnx"))
    assert find_pairs(model) == []


@pytest.mark.parametrize(
    ("method", "target"),
    [*((method, "host") for method in RangeMethod), (RangeMethod.MSE, "rpi4"), (RangeMethod.MSE, "rpi5")],
)
def test_eight_bits_say_what_32_bits_say(
    chain: Path, images: torch.Tensor, tmp_path: Path, method: RangeMethod, target: str
) -> None:
    form = integer_format(load_target(target))
    path = tmp_path / "q.onnx"
    report = quantize_integers(chain, path, images, IntegerSettings(form=form, method=method))
    assert error(chain, path, images) < 0.01
    assert report.nodes["Conv"] == 3
    assert (report.equalized, report.corrected, report.images) == (2, 4, 40)
    kinds = {i.data_type for i in onnx.load(str(path)).graph.initializer if i.name.endswith("_zero_point")}
    unsigned = onnx.TensorProto.UINT8
    assert (unsigned in kinds) is not form.signed_activations


def test_badly_scaled_channels_are_what_equalizing_is_for(images: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = written(badly_scaled(Chain()), tmp_path / "chain.onnx")
    errors = {}
    for equalized in (False, True):
        quantize_integers(
            path,
            tmp_path / "q.onnx",
            images,
            IntegerSettings(form=FORMAT, equalized=equalized, corrected=False),
        )
        errors[equalized] = error(path, tmp_path / "q.onnx", images)
    assert errors[True] < 0.01
    assert errors[False] > 0.1


def test_corrected_biases_take_the_mean_error_away(images: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    only = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.Flatten())
    with torch.no_grad():
        only[0].weight[:, 0] *= 40  # a coarse step for the small weights beside it
    path = written(only, tmp_path / "only.onnx")
    shifted = images + 3.0
    reduced = IntegerFormat(signed_activations=False, reduce_range=True, reason="a test")
    means = {}
    for corrected in (False, True):
        quantize_integers(
            path,
            tmp_path / "q.onnx",
            shifted,
            IntegerSettings(form=reduced, method=RangeMethod.MINMAX, corrected=corrected),
        )
        difference = outputs(tmp_path / "q.onnx", shifted) - outputs(path, shifted)
        means[corrected] = np.abs(difference.reshape(40, 6, -1).mean((0, 2))).mean()
    assert means[True] < 0.3 * means[False]


@pytest.mark.parametrize("reduced", [False, True])
def test_weights_are_rounded_as_onnxruntime_does(chain: Path, tmp_path: Path, reduced: bool) -> None:
    form = IntegerFormat(signed_activations=False, reduce_range=reduced, reason="a test")
    images = torch.randn(8, *IMAGE)
    quantize_integers(
        chain, tmp_path / "q.onnx", images, IntegerSettings(form=form, equalized=False, corrected=False)
    )
    model, proto = load_float(chain), onnx.load(str(tmp_path / "q.onnx"))
    found = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    checked = 0
    for name, weight in model.weights.items():
        if weight.ndim == 4:
            scale = found[f"{name}_scale"].reshape(-1, 1, 1, 1)
            np.testing.assert_allclose(
                found[f"{name}_quantized"] * scale, rounded(weight.astype(float), form), atol=1e-6
            )
            checked += 1
    assert checked == 3


def test_nodes_that_stay_in_32_bits(chain: Path, images: torch.Tensor, tmp_path: Path) -> None:
    names = [n.name for n in load_float(chain).proto.graph.node if n.op_type == "Conv"]
    report = quantize_integers(
        chain, tmp_path / "q.onnx", images, IntegerSettings(form=FORMAT), frozenset(names[:2])
    )
    assert report.nodes["Conv"] == 1
    assert report.kept_float == tuple(sorted(names[:2]))


def test_a_fixed_batch_is_kept_and_what_does_not_fill_one_is_left_out(tmp_path: Path) -> None:
    module = Chain().eval()
    from edgeprune.capture.export import export_program
    from edgeprune.exporting import export_onnx

    path = tmp_path / "fixed.onnx"
    export_onnx(export_program(module, torch.zeros(4, *IMAGE), dynamic_batch=False), path)
    quantize_integers(path, tmp_path / "q.onnx", torch.randn(10, *IMAGE), IntegerSettings(form=FORMAT))
    session = onnxruntime.InferenceSession(str(tmp_path / "q.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == 4


def test_every_target_has_a_form_and_says_why() -> None:
    forms = {name: integer_format(load_target(name)) for name in list_targets()}
    assert all(form.reason for form in forms.values())
    assert forms["rpi5"].signed_activations
    assert not forms["rpi4"].signed_activations
    assert not any(forms[name].reduce_range for name in forms if name.startswith(("rpi", "jetson")))


def test_what_cannot_be_quantized_is_refused(chain: Path, images: torch.Tensor, tmp_path: Path) -> None:
    done = tmp_path / "q.onnx"
    quantize_integers(chain, done, images, IntegerSettings(form=FORMAT))
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "report.json").write_text('{"schema_version": "1.1"}')
    for path, said in (
        (tmp_path / "missing.onnx", "no ONNX file at"),
        (tmp_path / "text.onnx", "is no valid ONNX file"),
        (tmp_path / "report.json", "report.json is no valid ONNX file"),
        (done, r"is quantized already (it has DequantizeLinear, QuantizeLinear)"),
        (plain(tmp_path / "old.onnx", opset=12), "is of opset 12; a scale for each channel needs opset 13"),
        (
            plain(tmp_path / "free.onnx", dims=("n", 3, "h", 8)),
            "dimension 2 of input 'x' is dynamic (h); give the size of its images, such as",
        ),
        (plain(tmp_path / "relu.onnx"), "has no convolution or matrix product with constant weights"),
    ):
        with pytest.raises(QuantizationError, match=re.escape(said)):
            load_float(path)
    with pytest.raises(QuantizationError, match="no calibration images were given"):
        quantize_integers(chain, tmp_path / "r.onnx", images[:0], IntegerSettings(form=FORMAT))
    with pytest.raises(QuantizationError, match="images are 3x4x4 and the model takes 3x8x8"):
        quantize_integers(chain, tmp_path / "r.onnx", images[:, :, :4, :4], IntegerSettings(form=FORMAT))
    assert not (tmp_path / "r.onnx").exists()


def test_activations_that_are_no_numbers_are_refused(tmp_path: Path, images: torch.Tensor) -> None:
    module = Chain()
    with torch.no_grad():
        module.first.weight.fill_(float("nan"))
    path = written(module, tmp_path / "nan.onnx")
    with pytest.raises(QuantizationError, match="has NaN or infinite values on the calibration images"):
        quantize_integers(path, tmp_path / "q.onnx", images, IntegerSettings(form=FORMAT))


class Squeezed(nn.Module):
    """Hard swish, hard sigmoid, means over positions with and without their dimensions, sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.first(x))
        x = x * nn.functional.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        x = nn.functional.silu(self.deep(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return written(Squeezed(), tmp_path_factory.mktemp("squeezed") / "squeezed.onnx")


@pytest.mark.parametrize("signed", [False, True])
def test_hard_activations_and_means_have_8_bit_forms(
    squeezed: Path, images: torch.Tensor, tmp_path: Path, signed: bool
) -> None:
    path, done = squeezed, tmp_path / "q.onnx"
    form = IntegerFormat(signed_activations=signed, reduce_range=False, reason="a test")
    report = quantize_integers(path, done, images, IntegerSettings(form=form))
    assert error(path, done, images) < 0.01
    kinds = {node.op_type for node in onnx.load(str(done)).graph.node}
    assert kinds.isdisjoint({"HardSwish", "HardSigmoid", "ReduceMean", "Clip"})
    assert {"Add": 2, "GlobalAveragePool": 2, "Sigmoid": 1}.items() <= report.nodes.items()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(done), options, providers=["CPUExecutionProvider"])
    run = {node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node}
    if not signed:  # kernels of the other form are those of Arm
        assert run.isdisjoint({"Conv", "Add", "Mul", "Sigmoid", "GlobalAveragePool"})


def test_hard_activations_that_stay_in_32_bits_stay_as_they_are(images: torch.Tensor, tmp_path: Path) -> None:
    path, done = written(Squeezed(), tmp_path / "squeezed.onnx"), tmp_path / "q.onnx"
    kept = frozenset(n.name for n in load_float(path).proto.graph.node if n.op_type.startswith("Hard"))
    assert len(kept) == 2
    quantize_integers(path, done, images, IntegerSettings(form=FORMAT), kept)
    kinds = [node.op_type for node in onnx.load(str(done)).graph.node]
    assert {"HardSwish", "HardSigmoid"} <= set(kinds)
