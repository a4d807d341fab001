"""What capture makes of nested outputs, and what it says of models whose images see each other."""

from __future__ import annotations

import collections
import dataclasses
import logging
from pathlib import Path
from typing import NamedTuple

import networks as nets
import numpy as np
import pytest
import torch
from networks import Network
from torch import Tensor, nn
from torch.nn import functional

import edgeprune
from edgeprune.artifacts.model import CapturedModel
from edgeprune.capture.capture import capture
from edgeprune.commands.run import checks, stages
from edgeprune.commands.run.state import Run
from edgeprune.coupling.coupling import couple
from edgeprune.errors import CaptureError, UsageError
from edgeprune.fx import op_name, tensor_leaves
from edgeprune.options.runs import CompressOptions

IMAGE = nets.IMAGE


class Heads(NamedTuple):
    """As the outputs of GoogLeNet and Inception v3, whose auxiliary heads are off in evaluation mode."""

    logits: Tensor
    auxiliary: Tensor | None


@dataclasses.dataclass
class Detected:
    """A user's own class, unknown to torch.export."""

    scores: Tensor
    maps: list[Tensor]
    size: int = 3


def network(forward, **layers: nn.Module) -> nn.Module:
    return Network(forward, stem=nn.Conv2d(3, 6, 3), **layers).eval()


def captured(forward, **layers: nn.Module) -> CapturedModel:
    return capture(network(forward, **layers), IMAGE)


NESTED = {
    "tuple of lists": (lambda m, x: ([y := m.stem(x), y * 2], (y * 3,)), 3),
    "dict, not in the order of its names": (lambda m, x: {"z": m.stem(x), "a": x * 2}, 2),
    "ordered dict": (lambda m, x: collections.OrderedDict(out=m.stem(x), aux=x), 2),
    "named tuple with an empty place": (lambda m, x: Heads(m.stem(x), None), 1),
    "dataclass": (lambda m, x: Detected(m.stem(x), [x * 2, x * 3]), 3),
    "dataclass in a dict in a list": (lambda m, x: [{"found": Detected(m.stem(x), [x])}, x * 2], 3),
    "constants beside tensors": (lambda m, x: (3, m.stem(x), "words", None, x.shape[0], x.sum((1, 2))), 2),
    "one tensor twice": (lambda m, x: (y := m.stem(x), {"again": y}), 2),
}


@pytest.mark.parametrize(("forward", "count"), NESTED.values(), ids=NESTED)
def test_all_tensors_of_a_nested_output_are_kept_in_order(forward, count):
    module = network(forward)
    graph_module = capture(module, IMAGE).graph_module
    images = torch.rand(5, *IMAGE)
    with torch.no_grad():
        expected, got = tensor_leaves(module(images)), graph_module(images)
    assert isinstance(got, Tensor) if count == 1 else isinstance(got, tuple)
    assert len(tensor_leaves(got)) == len(expected) == count
    for a, b in zip(expected, tensor_leaves(got), strict=True):
        torch.testing.assert_close(a, b)


def test_a_dataclass_output_keeps_parameter_names_and_the_model():
    module = network(lambda m, x: Detected(m.stem(x), []))
    found = capture(module, IMAGE)
    assert dict(found.graph_module.named_parameters()).keys() == {"stem.weight", "stem.bias"}
    assert isinstance(module(torch.rand(1, *IMAGE)), Detected)


def test_channels_of_every_output_stay():
    frozen = couple(captured(lambda m, x: [{"found": Detected(m.stem(x), [x])}])).frozen
    assert [(f.layer, f.channels, f.reason) for f in frozen] == [("stem", 6, "output of the model")]


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda m, x: {"scores": m.stem(x), "mean": m.stem(x).mean()}, "float32 ()"),
        (lambda m, x: [m.stem(x), m.stem(x).argmax(1)], "int64 (3, 6, 6)"),
        (lambda m, x: Detected(m.stem(x), [m.stem(x).mean(0)]), "float32 (6, 6, 6)"),
        (lambda m, x: m.stem(x).mean((2, 3)) @ m.stem(x).mean((2, 3)).T, "float32 (3, 3)"),
        (lambda m, x: 3, "no tensor"),
        (lambda m, x: {"nothing": None}, "no tensor"),
    ],
    ids=["number", "classes", "mean image", "similarities within the batch", "constant", "empty"],
)
def test_outputs_that_do_not_carry_the_batch_are_refused(forward, words):
    with pytest.raises(CaptureError) as caught:
        captured(forward)
    assert words in str(caught.value)
    assert "accepted are floating-point tensors of shape (images, ...)" in str(caught.value)


BATCH_STATISTICS = {
    "a layer without statistics": (
        lambda m, x: m.norm(m.stem(x)),
        {"norm": nn.BatchNorm2d(6, track_running_stats=False)},
        "at norm (node ",
    ),
    "a function without statistics": (
        lambda m, x: functional.batch_norm(m.stem(x), None, None, training=True),
        {},
        "at node ",
    ),
    "a function that ignores the stored ones": (
        lambda m, x: functional.batch_norm(
            m.stem(x), m.norm.running_mean, m.norm.running_var, training=True
        ),
        {"norm": nn.BatchNorm2d(6)},
        "at node ",
    ),
    "five of them": (
        lambda m, x: m.norms(m.stem(x)),
        {"norms": nn.Sequential(*(nn.BatchNorm2d(6, track_running_stats=False) for _ in range(5)))},
        "at norms.0 (node ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("forward", "layers", "place"), BATCH_STATISTICS.values(), ids=BATCH_STATISTICS)
def test_batch_norm_over_the_batch_is_noted_with_its_place(forward, layers, place, caplog):
    with caplog.at_level(logging.WARNING, logger="edgeprune.capture.capture"):
        found = captured(forward, **layers)
    (note,) = found.notes
    assert note.startswith(f"batch norm without stored statistics {place}")
    assert "images of a batch see each other" in note
    assert ("and 2 more" in note) == ("norms" in layers)
    assert [(r.name, r.getMessage()) for r in caplog.records] == [("edgeprune.capture.capture", note)]


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(6),
        nn.InstanceNorm2d(6),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        nn.GroupNorm(2, 6),
    ],
    ids=lambda n: type(n).__name__,
)
def test_norms_that_see_one_image_are_not_noted(norm):
    assert captured(lambda m, x: m.norm(m.stem(x)), norm=norm).notes == ()


def test_instance_norm_as_a_batch_norm_over_folded_images_is_not_noted():
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.stem(x)
        folded = y.reshape(1, -1, *y.shape[2:])
        return functional.batch_norm(folded, None, None, training=True).reshape(y.shape)

    assert captured(forward).notes == ()


@pytest.mark.parametrize(
    ("forward", "share"),
    [(lambda m, x: m.stem(x) * x.shape[0], "33.3%"), (lambda m, x: m.stem(x) - m.stem(x).mean(0), None)],
    ids=["size of the batch", "mean of the batch"],
)
def test_other_ways_of_seeing_the_batch_are_noted_with_their_size(forward, share):
    (note,) = captured(forward).notes
    assert note.startswith("the images of a batch see each other: an image's outputs change by ")
    assert share is None or share in note


def test_notes_reach_inspect_and_the_run(tmp_path):
    module = network(
        lambda m, x: m.head(m.norm(m.stem(x))),
        norm=nn.BatchNorm2d(6, track_running_stats=False),
        head=nets.head(6),
    )
    assert "at norm (node" in " ".join(edgeprune.inspect(module, input_shape=IMAGE).notes)
    path = tmp_path / "images.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8))
    run = Run(options=CompressOptions(model=module, calibration=path, input_shape=IMAGE))
    prepared = stages.prepare(run)
    assert prepared.captured.notes
    assert set(prepared.captured.notes) <= set(run.notes)


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda m, x: functional.dropout(m.stem(x)), "draws random numbers, at node "),
        (lambda m, x: m.drop(m.stem(x)), "draws random numbers, at drop (node "),
        (lambda m, x: m.stem(x) + torch.randn(6, 6, 6), "draws random numbers, at node randn"),
    ],
    ids=["function", "module", "noise"],
)
def test_random_numbers_in_evaluation_mode_are_refused_with_their_place(forward, words):
    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.dropout(x)

    with pytest.raises(CaptureError) as caught:
        captured(forward, drop=Always())
    assert words in str(caught.value)
    assert "gives another output 0 when it runs on the same inputs again" in str(caught.value)


def test_a_state_between_calls_is_refused():
    module = network(lambda m, x: m.stem(x) * m.norm.num_batches_tracked.add_(1), norm=nn.BatchNorm2d(6))
    with pytest.raises(CaptureError, match="draws random numbers or keeps a state; accepted is"):
        capture(module, IMAGE)


def test_dropout_that_is_off_is_no_random_number():
    assert captured(lambda m, x: m.drop(m.stem(x)), drop=nn.Dropout(0.5)).notes == ()


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda m, x: m.stem(x) if x.shape[0] == 2 else m.stem(x) * 2, "its code fixes the batch at 2"),
        (lambda m, x: m.stem(x) + torch.zeros(2, 6, 6, 6), "its code fixes the batch at 2"),
        (lambda m, x: torch.cat(m.stem(x).chunk(2)), "its code fixes the batch at 2"),
    ],
    ids=["condition", "constant", "chunk"],
)
def test_a_batch_fixed_in_the_code_is_refused(forward, words):
    with pytest.raises(CaptureError) as caught:
        captured(forward)
    assert words in str(caught.value)
    assert "run with TORCH_LOGS" not in str(caught.value)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.stem(x.sub_(0.5)),
        lambda m, x: functional.batch_norm(
            m.stem(x), m.norm.running_mean, m.norm.running_var, training=True
        ),
    ],
    ids=["input", "statistics"],
)  # fmt: skip
def test_the_graph_writes_nothing_back(forward):
    graph_module = captured(forward, norm=nn.BatchNorm2d(6)).graph_module
    assert not [n for n in graph_module.graph.nodes if op_name(n).endswith("_")]
    before = {k: v.clone() for k, v in graph_module.state_dict().items()}
    images = torch.rand(3, *IMAGE)
    given = images.clone()
    with torch.no_grad():
        graph_module(images)
    assert torch.equal(images, given)
    assert all(torch.equal(v, before[k]) for k, v in graph_module.state_dict().items())


def test_a_wrong_shape_is_told_from_a_wrong_number_of_inputs():
    with pytest.raises(CaptureError, match="its first convolution takes 3 channels") as caught:
        capture(nets.chain().eval(), (1, 8, 8))
    assert "of the shape 1x8x8, channels x height x width" in str(caught.value)
    with pytest.raises(CaptureError, match="'flag'"):
        capture(_TwoArguments().eval(), IMAGE)


class _TwoArguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, flag: Tensor) -> Tensor:
        return self.stem(x) + flag


def test_shapes_of_several_inputs_are_refused_by_compress_before_anything_is_read():
    options = CompressOptions(
        model=nets.chain(), calibration=Path("missing.npz"), input_shape=(IMAGE, (5,))  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(UsageError, match="3x8x8 and 5; accepted is the shape of one"):
        checks.check_options(options)
