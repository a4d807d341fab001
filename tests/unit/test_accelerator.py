"""Networks on another device compute the same there, from ranking to training."""

from __future__ import annotations

import itertools

import networks as nets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from simulated_gpu import is_asked, simulated_device, simulated_gpu
from torch import nn

from edgeprune import accelerator
from edgeprune.accelerator import CPU, device_of, find_device, free_bytes, in_memory, moved, repeatable
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import ComputeDevice
from edgeprune.capture.capture import capture
from edgeprune.commands.run.scoring import context_of_network
from edgeprune.coupling.coupling import couple
from edgeprune.errors import UsageError
from edgeprune.fx import tensor_leaves
from edgeprune.games.block_game import BlockGame
from edgeprune.games.layer_game import LayerGame
from edgeprune.importance.ranking import options_for, rank
from edgeprune.importance.registry import criterion, criterion_names
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.distillation.training import DistillationOptions, distill
from edgeprune.recovery.reconstruction import reconstruct

META = torch.device("meta")
IMAGES = 24


WITHOUT_DOUBLE = "simulated without float64"
KINDS = ("simulated", WITHOUT_DOUBLE) if is_asked() else ("cuda",)
QUICK = ("residual_add",)
RECURRENT = ("lstm", "gru", "plain_recurrence")
"""Of which the processor runs kernels that a simulated GPU does not pass on."""


@pytest.fixture(params=[pytest.param(k, marks=pytest.mark.wide if k == "simulated" else ()) for k in KINDS])
def gpu(request, monkeypatch):
    """A GPU: a real one, or in ``test_simulated_gpus.py`` two that calculate on the processor."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU is at hand")
        with repeatable(ComputeDevice.CUDA):
            yield find_device(ComputeDevice.CUDA)
        return
    has_double = request.param == "simulated"
    if not has_double:
        monkeypatch.setattr(accelerator, "_WITHOUT_DOUBLE", {simulated_device().type})
    with simulated_gpu(has_double=has_double) as simulated:
        yield simulated.device


def on_gpus(test):
    """Every network on every kind of GPU; most simulated ones in the wide tests."""
    cases = []
    for factory, kind in itertools.product(nets.PLAYERS, KINDS):
        name = factory.__name__
        if kind != "cuda" and name in RECURRENT:
            continue
        quick = kind == "cuda" or (kind == WITHOUT_DOUBLE and name in QUICK)
        cases.append(pytest.param(factory, kind, marks=() if quick else pytest.mark.wide))
    return pytest.mark.parametrize(("factory", "gpu"), cases, indirect=["gpu"])(test)


def prepared(factory):
    """A network in single precision, its coupling, and images."""
    torch.manual_seed(0)
    module = factory()
    nets.randomise(module, nets.IMAGE)
    captured = capture(module.eval(), nets.IMAGE)
    images = torch.randn(IMAGES, *nets.IMAGE, generator=torch.Generator().manual_seed(0))
    return captured, couple(captured), images


@pytest.mark.parametrize("factory", list(nets.PLAYERS))
def test_a_moved_graph_makes_all_its_tensors_there_and_leaves_the_first_alone(factory):
    captured, _, images = prepared(factory)
    graph = captured.graph_module
    elsewhere = moved(graph, META)
    assert device_of(elsewhere) == META
    assert device_of(graph) == CPU
    found = tensor_leaves(elsewhere(images.to(META)))
    with torch.no_grad():
        wanted = tensor_leaves(graph(images))
    assert all(value.device == META for value in found)
    assert [value.shape for value in found] == [value.shape for value in wanted]
    assert moved(graph, CPU) is graph


class MakesTensors(nn.Module):
    """Creates constants, a range and zeros in its own forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        ramp = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
        shift = torch.tensor([1.0, 2.0, 3.0, 4.0])
        return (self.conv(x + ramp) + shift[:, None, None] + torch.zeros(4, 1, 1)).mean((2, 3))


def test_constants_and_made_tensors_move_too():
    captured = capture(MakesTensors().eval(), nets.IMAGE)
    found = moved(captured.graph_module, META)(torch.zeros(2, *nets.IMAGE, device=META))
    assert tensor_leaves(found)[0].device == META


def test_a_module_without_tensors_is_on_the_processor():
    assert device_of(nn.ReLU()) == CPU
    assert device_of(nn.BatchNorm2d(3, affine=False)) == CPU
    assert free_bytes(CPU) == 0


def test_without_a_gpu_auto_is_the_processor_and_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device(ComputeDevice.AUTO) == find_device(ComputeDevice.CPU) == CPU
    with pytest.raises(UsageError, match=r"--device cuda was given.*accepted are cpu, and auto"):
        find_device(ComputeDevice.CUDA)
    with repeatable(ComputeDevice.AUTO):
        pass


def test_apples_gpu_is_taken_where_it_is_named_and_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device(ComputeDevice.MPS) == torch.device("mps:0")
    assert find_device(ComputeDevice.AUTO) == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"--device mps was given.*finds no GPU of Apple's"):
        find_device(ComputeDevice.MPS)


def test_an_operator_that_apples_gpu_lacks_is_named(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    words = r"--device mps.*aten::_thnn.*give --device cpu, or set PYTORCH_ENABLE_MPS_FALLBACK=1"
    with pytest.raises(UsageError, match=words), repeatable(ComputeDevice.MPS):
        raise NotImplementedError("The operator 'aten::_thnn' is not implemented for the MPS device\nmore")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_every_way_to_say_that_memory_is_full_is_known(error, full):
    def compute(part):
        if part.stop - part.start > 1:
            raise error
        return part.start

    if full:
        assert [found for _, found in in_memory([slice(0, 3)], compute)] == [0, 1, 2]
    else:
        with pytest.raises(RuntimeError, match="mat1"):
            list(in_memory([slice(0, 3)], compute))


@given(room=st.integers(1, 40), sizes=st.lists(st.integers(1, 60), max_size=5))
def test_a_part_that_does_not_fit_is_halved_until_it_does(room, sizes):
    edges = np.cumsum([0, *sizes]).tolist()
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]

    def compute(part):
        if part.stop - part.start > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return list(range(part.start, part.stop))

    found = list(in_memory(parts, compute))
    assert [i for _, each in found for i in each] == list(range(edges[-1]))
    assert all(part.stop - part.start <= room for part, _ in found)


def test_an_item_that_does_not_fit_alone_is_an_error():
    def compute(part):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        list(in_memory([slice(0, 3)], compute))


_ROUNDING = 1e-5
"""Of a loss in single precision: values below are its noise."""


def close(found, wanted, tolerance=2e-3):
    """Whether figures agree to a share of the largest."""
    np.testing.assert_allclose(found, wanted, atol=tolerance * max(np.abs(wanted).max(), _ROUNDING))


def contexts(captured, coupling, batch, reference, gpu):
    """Inputs of criteria on the processor, then on the GPU."""
    for device in (CPU, gpu):
        with torch.no_grad():
            yield context_of_network(captured, coupling, batch, reference, ratio=0.25, device=device)


@on_gpus
def test_ranking_on_a_gpu_gives_the_figures_of_the_processor(factory, gpu):
    captured, coupling, images = prepared(factory)
    batch = ImageBatch(images=images, labels=None)
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(images))
    found = []
    for context in contexts(captured, coupling, batch, reference, gpu):
        ranking = rank(
            context.recovery_game, coupling.groups, rng=np.random.default_rng(0),
            options=options_for(coupling, 0.25), advance=lambda _units: None,
        )  # fmt: skip
        coalitions = np.random.default_rng(1).random((40, coupling.num_players)) < 0.7
        few = coalitions[:3]
        group = coupling.groups[0].players
        layer = LayerGame(context.running, coupling, group, batch, reference)
        found.append(
            (
                ranking.values,
                context.recovery_game.values(coalitions),
                context.game.values(few),
                layer.values(coalitions[:, : len(group)]),
            )
        )
    for wanted, told in zip(*found, strict=True):
        close(told, wanted, 2e-2)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.wide if n == "hybrid" else ())  # the test above has its game
        for n in criterion_names()
        if n not in ("random", "zeros")
    ],
)
def test_every_criterion_ranks_on_a_gpu(name, gpu):
    captured, coupling, images = prepared(nets.residual_add)
    batch = ImageBatch(images=images, labels=None)
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(images))
    found = []
    for context in contexts(captured, coupling, batch, reference, gpu):
        scored = criterion(name).score(context, rng=np.random.default_rng(0), advance=lambda _units: None)
        found.append(scored.values)
    close(found[1], found[0], 2e-2)


def test_blocks_are_valued_on_a_gpu(gpu):
    captured, _, images = prepared(nets.residual_add)
    batch = ImageBatch(images=images, labels=None)
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(images))
    found = []
    for device in (CPU, gpu):
        there = type(captured)(**{**vars(captured), "graph_module": moved(captured.graph_module, device)})
        game = BlockGame(there, batch, reference)
        found.append(game.values(np.array([[False], [True]])))
    close(found[1], found[0])


@on_gpus
def test_recovery_and_training_on_a_gpu_give_a_network_as_near(factory, gpu):
    captured, coupling, images = prepared(factory)
    removed = tuple(sorted(p for g in coupling.groups if len(g.players) > 2 for p in g.players[::3]))
    bare = prune(captured, coupling, removed)
    reached = []
    for device in (CPU, gpu):
        recovered, report = reconstruct(
            captured.graph_module, bare, coupling, removed, nets.split(images),
            generator=torch.Generator().manual_seed(0), device=device,
        )  # fmt: skip
        pupil, taught = distill(
            captured.graph_module, recovered, coupling, removed, nets.split(images),
            generator=torch.Generator().manual_seed(0), device=device,
            options=DistillationOptions(steps=8, batch=8, learning_rates=(1e-3,), checks=2),
        )  # fmt: skip
        assert device_of(recovered) == device_of(pupil) == CPU
        with torch.no_grad():
            wanted, told = (tensor_leaves(n(images)) for n in (captured.graph_module, recovered))
        reached.append(
            (
                [step.error_after for step in report.steps],
                [float((a - b).square().mean() / a.var()) for a, b in zip(wanted, told, strict=True)],
                [taught.divergence_before],
            )
        )
    for here, there in zip(*reached, strict=True):
        # Deep in a network candidates that are close win by turns.
        np.testing.assert_allclose(there, here, rtol=0.15, atol=1e-3)
