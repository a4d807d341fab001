"""One model of the coupling benchmark in a process of its own.

Run as ``python coupling_child.py MODEL {edgeprune,torch-pruning}``; prints one JSON object a finished stage
on standard output, each with all that is known by then, so that a crash or time-out loses only the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coupling_models import BenchModel, all_models, quiet_timm
from torch import nn

SEED = 0
TOO_SMALL = 2
"""Groups of fewer players stay whole: a lone player may stand for all channels of a layer."""


class Progress:
    """What is known so far; prints all of it after every stage."""

    def __init__(self, start: float) -> None:
        self._out = sys.stdout
        self._start = start
        self.facts: dict[str, Any] = {"stage": "start"}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """CPU seconds of a stage, which other processes hardly disturb; it stays named if it does not end."""
        self.facts["stage"] = name
        self.tell()
        start = time.process_time()
        yield
        self.facts[f"{name}_s"] = time.process_time() - start
        self.tell()

    def tell(self, **facts: Any) -> None:
        """Add facts and print."""
        self.facts.update(facts, seconds=time.perf_counter() - self._start)
        print(json.dumps(self.facts), file=self._out, flush=True)


def main() -> int:
    """Measure one model with one tool; the reason of a failure is a fact like any other."""
    start = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tool", choices=["edgeprune", "torch-pruning"])
    parser.add_argument("--no-onnx", action="store_true")
    parser.add_argument("--group-seconds", type=float, default=600.0)
    parser.add_argument("--cpu-seconds", type=int, help="the kernel ends the process after so many")
    options = parser.parse_args()
    if options.cpu_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (options.cpu_seconds, options.cpu_seconds + 5))
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    warnings.simplefilter("ignore")
    progress = Progress(start)
    with contextlib.redirect_stdout(sys.stderr):
        found = next(m for m in all_models() if m.key == options.model)
        if found.library == "timm":
            quiet_timm()
        try:
            if options.tool == "edgeprune":
                from coupling_ours import measure

                measure(found, progress, with_onnx=not options.no_onnx, group_seconds=options.group_seconds)
            else:
                measure_torch_pruning(found, progress)
            progress.tell(stage="done")
        except Exception as error:
            progress.tell(error=reason_of(error), place=_innermost_place(error))
    return 0


def reason_of(error: Exception) -> str:
    """Class and first line of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def _innermost_place(error: Exception) -> str:
    """File and line that raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""


def prepare(model: BenchModel) -> nn.Module:
    """The model with nothing left at its initial constant, and batch norms that fit random images.

    Biases of zero, scales of one and layer scales of 1e-6 would hide mistakes; norms with wrong statistics
    let signals fade, and any two outputs would agree.
    """
    module = model.build()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                zero = bool(parameter.flatten()[0] == 0)
                nn.init.uniform_(parameter, *((-0.2, 0.2) if zero else (0.5, 1.5)))
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        if norms:
            count = 16 if int(np.prod(model.input_shape)) <= 3 * 128 * 128 else 4
            module(torch.randn((count, *model.input_shape)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return module.eval()


def measure_torch_pruning(model: BenchModel, progress: Progress) -> None:
    """Dependency graph, all groups, and one step of a magnitude pruner at half of the channels."""
    import torch_pruning
    from torch.utils.flop_counter import FlopCounterMode

    with progress.stage("build"):
        module = prepare(model)
        images = torch.randn((2, *model.input_shape))
        with torch.no_grad(), FlopCounterMode(display=False) as before:
            output = _first_tensor(module(images))
    heads = [m for m in module.modules() if _is_layer(m) and m.weight.shape[0] == output.shape[1]]
    widths = _widths(module)
    with progress.stage("graph"):
        graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=images, verbose=False)
        groups = list(graph.get_all_groups(ignored_layers=heads))
    progress.tell(groups=len(groups), prunable_share=_prunable_width(graph, groups) / widths)
    del graph, groups
    with progress.stage("pruner"):
        pruner = torch_pruning.pruner.MagnitudePruner(
            module,
            images,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=heads,
            num_heads={m: m.num_heads for m in module.modules() if isinstance(m, nn.MultiheadAttention)},
        )
    with progress.stage("step"):
        pruner.step()
    progress.tell(removed_share=1 - _widths(module) / widths)
    with progress.stage("forward"), torch.no_grad(), FlopCounterMode(display=False) as after:
        got = _first_tensor(module(images))
    macs_left = after.get_total_flops() / max(before.get_total_flops(), 1)
    progress.tell(forward_runs=got.shape == output.shape, macs_left=macs_left)


def _first_tensor(value: Any) -> torch.Tensor:
    while not isinstance(value, torch.Tensor):
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return value


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear)


def _widths(module: nn.Module) -> int:
    """Output channels of all convolutions and linear layers."""
    layers = [m for m in module.modules() if _is_layer(m)]
    return sum(m.out_features if isinstance(m, nn.Linear) else m.out_channels for m in layers)


def _prunable_width(graph: Any, groups: list[Any]) -> int:
    """Output channels of convolutions and linear layers that some group removes."""
    found: dict[nn.Module, set[int]] = {}
    for group in groups:
        for dependency, indices in group:
            layer = dependency.target.module
            if _is_layer(layer) and graph.is_out_channel_pruning_fn(dependency.handler):
                found.setdefault(layer, set()).update(indices)
    return sum(len(indices) for indices in found.values())


def half_of_every_group(groups: list[list[int]]) -> list[tuple[int, ...]]:
    """A seeded random half of every group with players to spare."""
    return [tuple(sorted(order[: len(order) // 2])) for order in shuffled_groups(groups)]


def shuffled_groups(groups: list[list[int]]) -> list[list[int]]:
    """The groups with players to spare, each in a seeded random order."""
    generator = np.random.default_rng(SEED)
    return [generator.permutation(players).tolist() for players in groups if len(players) >= TOO_SMALL]


if __name__ == "__main__":
    raise SystemExit(main())
