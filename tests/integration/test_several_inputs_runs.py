"""``compress`` and ``rank`` of models with several inputs: their files take the inputs one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from several_inputs import NETWORKS, ImageAndVector, gate
from torch import Tensor, nn
from torch.utils.data import Dataset

import edgeprune
from edgeprune import Effort, Finetune, Precision, Preprocessing, Task, apply_surgery
from edgeprune.errors import UsageError
from edgeprune.fx import tensor_leaves

PLAIN = Preprocessing()
QUICK = {ImageAndVector}


class Items(Dataset[Any]):
    """Random inputs of these shapes."""

    def __init__(self, shapes: tuple[tuple[int, ...], ...], count: int = 40) -> None:
        generator = torch.Generator().manual_seed(0)
        self._inputs = [torch.rand((count, *shape), generator=generator) for shape in shapes]

    def __len__(self) -> int:
        return len(self._inputs[0])

    def __getitem__(self, index: int) -> Any:
        return (tuple(each[index] for each in self._inputs),)

    def first(self, count: int) -> tuple[Tensor, ...]:
        return tuple(each[:count] for each in self._inputs)


def seeded(factory: Any) -> nn.Module:
    torch.manual_seed(0)
    return factory().eval()


def in_onnx(path: Path, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})


@pytest.mark.parametrize(
    "factory",
    [f if f in QUICK else pytest.param(f, marks=pytest.mark.wide) for f in NETWORKS],
    ids=lambda f: f.__name__,
)
def test_files_of_a_run_are_one_pruned_network_with_its_own_inputs(factory: Any, tmp_path: Path):
    data, out = Items(NETWORKS[factory][0]), tmp_path / "out"
    report = edgeprune.compress(
        seeded(factory),
        calibration=data,
        effort=Effort.QUICK,
        preprocessing=PLAIN,
        output=out,
        ratio=0.3,
        width_quantum=1,
    )
    assert all(figure.verdict.value == "passed" for figure in report.parity)
    assert report.pruning.players_removed
    assert tuple(report.model.inputs.values()) == NETWORKS[factory][0]
    inputs = data.first(5)
    own = apply_surgery(seeded(factory), out / "surgery.json", out / "weights.safetensors")
    program = torch.export.load(out / "model.pt2").module()
    with torch.no_grad():
        wanted = [output.numpy() for output in tensor_leaves(own(*inputs))]
        loaded = [output.numpy() for output in tensor_leaves(program(*inputs))]
    for found in (in_onnx(out / "model.onnx", inputs), loaded):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5 * float(np.abs(other).max()))


@pytest.mark.wide
def test_the_program_of_a_run_is_compressed_again_and_ranked(tmp_path: Path):
    data = Items(NETWORKS[gate][0])
    options = {"effort": Effort.QUICK, "calibration": data, "preprocessing": PLAIN}
    edgeprune.compress(seeded(gate), output=tmp_path / "one", ratio=0.2, width_quantum=1, **options)
    program = tmp_path / "one" / "model.pt2"
    again = edgeprune.compress(program, output=tmp_path / "two", ratio=0.2, width_quantum=1, **options)
    assert again.pruning.players_removed
    ranking = edgeprune.rank(program, criteria=("l1", "taylor"), **options)
    assert len(ranking.criteria) == 2
    assert tuple(ranking.model.inputs.values()) == NETWORKS[gate][0]


def test_fine_tuning_limits_and_16_bits_take_several_inputs(tmp_path: Path):
    data, out = Items(NETWORKS[gate][0]), tmp_path / "out"
    report = edgeprune.compress(
        seeded(gate),
        calibration=data,
        effort=Effort.QUICK,
        preprocessing=PLAIN,
        output=out,
        ratio=0.3,
        width_quantum=1,
        finetune=Finetune(steps=3),
        precision=Precision.FP16,
        batch_size=2,
    )
    assert report.recovery.distillation is not None
    single = [each[:2] for each in data.first(2)]
    small = in_onnx(out / "model.onnx", tuple(single))
    large = in_onnx(out / "model-fp32.onnx", tuple(single))
    np.testing.assert_allclose(small[0], large[0], atol=1e-2 * float(np.abs(large[0]).max()))


def test_the_report_names_the_inputs_and_no_script_for_single_images_is_written(tmp_path: Path):
    data, out = Items(NETWORKS[ImageAndVector][0]), tmp_path / "out"
    edgeprune.compress(seeded(ImageAndVector), calibration=data, preprocessing=PLAIN, output=out, ratio=0.3)
    assert "image 3x8x8, vector 5" in (out / "report.md").read_text()
    assert "image 3x8x8, vector 5" in (out / "README.md").read_text()
    assert json.loads((out / "report.json").read_text())["model"]["inputs"] == {
        "image": [3, 8, 8],
        "vector": [5],
    }
    assert not (out / "infer.py").exists()
    assert "<img" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": Precision.INT8}, "the model takes several inputs .image, vector."),
        ({"precision": Precision.AUTO}, "accepted for it are fp32 and fp16"),
        ({"task": Task.DETECTION}, "--task detection was given, and the model takes several inputs"),
        ({"task": Task.SEGMENTATION}, "accepted for it are classification, regression"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_take_several_inputs_says_so_before_ranking(options: Any, message: str, tmp_path: Path):
    data = Items(NETWORKS[ImageAndVector][0])
    with pytest.raises(UsageError, match=message):
        edgeprune.compress(ImageAndVector(), calibration=data, output=tmp_path / "out", ratio=0.3, **options)
    assert not (tmp_path / "out").exists()


def test_a_constant_input_is_in_the_files_and_surgery_takes_it(tmp_path: Path):
    data, out = Items(((3, 8, 8),)), tmp_path / "out"
    constant = torch.linspace(-1, 1, 5)[None]
    module = _Added()
    report = edgeprune.compress(
        module, calibration=_Images(data), preprocessing=PLAIN, output=out, ratio=0.3,
        width_quantum=1, constants={"scale": constant},
    )  # fmt: skip
    assert report.model.inputs == {}
    (images,) = data.first(4)
    own = apply_surgery(
        _Added(), out / "surgery.json", out / "weights.safetensors", constants={"scale": constant}
    )
    assert type(own) is _Added
    with torch.no_grad():
        wanted = own(images, constant).numpy()
    np.testing.assert_allclose(in_onnx(out / "model.onnx", (images,))[0], wanted, atol=1e-5)


class _Images(Dataset[Any]):
    def __init__(self, items: Items) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index][0][0]


class _Added(nn.Module):
    """Scores that are scaled by an input."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 12, 3)
            self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)).mean((2, 3))) * scale


class _Named(nn.Module):
    """Two images whose features meet in one layer, under names that Python and ONNX know."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 8, 3)
            self.head = nn.Linear(16, 4)

    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        both = [torch.relu(self.first(x)).mean((2, 3)) for x in (input, output)]
        return self.head(torch.cat(both, 1))


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.wide), 4])
def test_a_fixed_batch_and_names_of_onnx_do_not_collide(batch_size: int, tmp_path: Path):
    data, out = Items(((3, 8, 8), (3, 8, 8))), tmp_path / "out"
    report = edgeprune.compress(
        _Named().eval(), calibration=data, preprocessing=PLAIN, output=out, ratio=0.3, width_quantum=1,
        batch_size=batch_size,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(x.name, x.shape) for x in session.get_inputs()] == [
        ("input", [batch_size, 3, 8, 8]), ("output", [batch_size, 3, 8, 8]),
    ]  # fmt: skip
    assert session.get_outputs()[0].name == "output_of_the_model"
    before = report.deployment.original
    assert before.macs == 2 * 8 * 27 * 36 + 16 * 4


def test_a_recipe_trains_the_class_with_its_own_inputs(tmp_path: Path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "import torch\n\n\n"
        "def train(network):\n"
        "    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)\n"
        "    for _ in range(2):\n"
        "        optimizer.zero_grad()\n"
        "        network(torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)).square().sum().backward()\n"
        "        optimizer.step()\n"
    )
    report = edgeprune.compress(
        _Named().eval(), calibration=Items(((3, 8, 8), (3, 8, 8))), preprocessing=PLAIN,
        output=tmp_path / "out", ratio=0.3, width_quantum=1, recipe=f"{recipe}:train",
    )  # fmt: skip
    assert report.recovery.recipe is not None
