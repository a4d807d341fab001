"""Train the pruned network with the user's own function, and take over the trained weights."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune import parity
from edgeprune.applying import apply_surgery
from edgeprune.applying.replay import named_tensors
from edgeprune.capture.joining import as_joined, with_own_inputs
from edgeprune.commands.run.exports import write_surgery
from edgeprune.commands.run.kept_stages import NoReport, kept_network
from edgeprune.commands.run.stages import PARITY_TOLERANCE
from edgeprune.commands.run.state import PARITY_IMAGES, Planned, Prepared, Pruned, Run
from edgeprune.errors import ParityError, SurgeryError, UsageError
from edgeprune.storage.files import scratch_folder
from edgeprune.system.imports import UserFunction, user_code


def find_recipe(spec: str) -> UserFunction:
    """The function that ``--recipe`` names, imported but not called.

    Raises:
        UsageError: there is no such module or function.
    """
    return UserFunction(spec, what="recipe", error=UsageError)


def train_with_recipe(run: Run, prepared: Prepared, planned: Planned, pruned: Pruned) -> Pruned:
    """Train the recovered network with the function of ``--recipe``.

    It is called with the network, of the user's own class if that can have the new sizes, in evaluation mode
    and with gradients enabled; it trains in place or returns a network with the same tensors. PyTorch's
    random number generator is seeded with the run's seed.

    Raises:
        UsageError: the function fails, or the result is another network, has NaN in it, or computes
            something else with its weights than the pruned graph does.
    """
    spec = run.options.recipe
    assert spec is not None

    def train() -> tuple[GraphModule, NoReport]:
        return _trained(run, prepared, planned, pruned, spec), NoReport()

    graph, _ = kept_network(run, run.journals, "trained", pruned.bare, planned.plan.removed, NoReport, train)
    return replace(pruned, finetuned=graph)


def _trained(run: Run, prepared: Prepared, planned: Planned, pruned: Pruned, spec: str) -> GraphModule:
    """The recovered network with the weights trained by the function ``spec``."""
    function = find_recipe(spec)
    with run.stage("train with the recipe"), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        network = _handed_over(run, prepared, planned, pruned)
        torch.manual_seed(run.options.seed)
        answer = function(network)
        trained = network if answer is None else answer
        if not isinstance(trained, nn.Module):
            raise UsageError(
                f"recipe {spec!r} returned a value of type {type(trained).__name__}; accepted is the network "
                "that it was called with, trained in place (and nothing returned) or returned"
            )
    remedy = "return the network as it was handed over, trained"
    with user_code(f"the network that recipe {spec!r} returned", UsageError, remedy):
        trained.eval()
    graph = _taken_back(spec, trained, pruned.recovered)
    sample = prepared.calibration.fitting.images[:PARITY_IMAGES]
    _require_same_function(spec, as_joined(trained, prepared.captured), graph, sample)
    return graph


def _handed_over(run: Run, prepared: Prepared, planned: Planned, pruned: Pruned) -> nn.Module:
    """The recovered network as the user's class, else as a graph."""
    own_graph = with_own_inputs(pruned.recovered, planned.variant.captured)
    with scratch_folder() as scratch:
        folder = scratch
        write_surgery(prepared, planned, pruned, folder)
        try:
            network = apply_surgery(
                prepared.loaded.module, folder / "surgery.json", folder / "weights.safetensors"
            )
        except SurgeryError as reason:
            run.note(f"the recipe trains the rewritten graph, not the model's own class: {reason}")
            network = copy.deepcopy(own_graph)
    own = named_tensors(network)
    computed = [x.weight for x in planned.variant.coupling.layers if x.weight not in own]
    if computed:
        run.note(
            "the recipe trains the rewritten graph, not the model's own class, which computes its weights "
            f"({computed[0]}) from others"
        )
        network = copy.deepcopy(own_graph)
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return network.eval()


def _taken_back(spec: str, trained: nn.Module, recovered: GraphModule) -> GraphModule:
    """The pruned graph with the trained weights."""
    learnt = named_tensors(trained)
    graph = copy.deepcopy(recovered)
    with torch.no_grad():
        for name, tensor in named_tensors(graph).items():
            new = learnt.get(name)
            if new is None:
                continue  # a constant of the graph, which the class computes itself
            _check_tensor(spec, name, new, tensor)
            tensor.copy_(new.detach())
    if not any(name in learnt for name in named_tensors(graph)):
        raise UsageError(f"recipe {spec!r} returned another network: none of its tensors is known here")
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    return graph


def _check_tensor(spec: str, name: str, new: Tensor, old: Tensor) -> None:
    if new.shape != old.shape:
        raise UsageError(
            f"recipe {spec!r} returned a network whose {name} is {tuple(new.shape)} instead of "
            f"{tuple(old.shape)}; accepted is one with the tensors of the network that it was called with"
        )
    if new.is_floating_point() and not bool(torch.isfinite(new).all()):
        raise UsageError(
            f"recipe {spec!r} left NaN or infinite values in {name}; train with a lower learning rate"
        )


def _require_same_function(spec: str, trained: nn.Module, graph: GraphModule, sample: Tensor) -> None:
    """Check that the delivered graph computes the same as the trained network."""
    remedy = "return the network as it was handed over, trained"
    with user_code(f"the network that recipe {spec!r} returned, run on images,", UsageError, remedy):
        answers = parity.run_torch(trained.cpu(), sample)
    try:
        figure = parity.compare(
            answers,
            parity.run_torch(graph, sample),
            names=("trained network", "pruned graph with its weights"),
            tolerance=PARITY_TOLERANCE,
        )
        parity.require((figure,))
    except ParityError as reason:
        raise UsageError(
            f"recipe {spec!r} returned a network that computes something else than the pruned graph with its "
            f"weights ({str(reason).partition(';')[0]}); train it as it is handed over, and leave its "
            "layers as they are"
        ) from reason
