"""Run a replayed model on the recorded input shape and compare it with the rewritten graph."""

from __future__ import annotations

import copy
import itertools
import linecache
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeprune.applying.attributes import attempts, put
from edgeprune.applying.files import Recipe, listed
from edgeprune.errors import EdgepruneError, SurgeryError
from edgeprune.fx import tensor_leaves
from edgeprune.loading.programs import program_input, program_module, read_program
from edgeprune.plain_names import plain_name
from edgeprune.system.imports import ended_in_the_open, first_line, raised_in

_log = logging.getLogger("edgeprune.applying")
TOLERANCE = 1e-5
"""Largest difference of outputs from the program's, relative to the largest output."""

_BATCH = 2
_NOT_THE_USERS = (f"{Path(torch.__file__).parent}{os.sep}", f"{Path(__file__).parents[1]}{os.sep}", "<")
_INSTEAD = "or go on with model.pt2, the rewritten graph, instead"
_BARE_NORMS = (
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


@dataclass(frozen=True, kw_only=True)
class _Reference:
    path: Path
    program: ExportedProgram

    def outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        try:
            with torch.no_grad(), ended_in_the_open():
                return tensor_leaves(program_module(self.program, str(self.path))(*inputs))
        except EdgepruneError:
            raise
        except Exception as error:
            raise SurgeryError(
                f"{str(self.path)!r} does not run on the recipe's input shape ({first_line(error)}); "
                "compare with the model.pt2 of the same run"
            ) from error


def check_replay(
    original: nn.Module, pruned: nn.Module, plan: Recipe, program_path: Path | None, *, weights: str | None
) -> None:
    """Run ``pruned`` once, on a float32 copy in evaluation mode; ``weights`` is the file it was given.

    Norms without parameters, whose sizes are not in the recipe, take them from their inputs. If the outputs
    differ from the program's, attributes that repeat a pruned size are set if that makes them equal.

    Raises:
        SurgeryError: it does not run, or its outputs are not those of the program.
        ModelLoadError: the program cannot be loaded.
    """
    reference = None
    if program_path is not None:
        reference = _Reference(path=program_path, program=read_program(program_path, trust_pickle=False))
    inputs = _inputs(plan, reference)
    if inputs is None:
        _log.warning("%s has no input shape, so the pruned model was not run", plan.path)
        return
    try:
        _run_and_compare(original, pruned, inputs, reference, weights)
    except SurgeryError:
        if reference is None or not _settle_attributes(pruned, plan, inputs, reference):
            raise
        _run_and_compare(original, pruned, inputs, reference, weights)


def _inputs(plan: Recipe, reference: _Reference | None) -> list[Tensor] | None:
    shapes = plan.input_shapes
    taken = None if reference is None else program_input(reference.program)
    if shapes is None and taken is not None and taken.shape is not None:
        shapes = (taken.shape,)
    if shapes is None:
        return None
    batch = (taken.batch if taken else None) or _BATCH
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((batch, *shape), generator=generator) for shape in shapes]


def _run_and_compare(
    original: nn.Module,
    pruned: nn.Module,
    inputs: Sequence[Tensor],
    reference: _Reference | None,
    weights: str | None,
) -> None:
    trial = _trial(pruned)
    if reference is not None and weights is None:
        _take_weights(trial, reference.program)
    got = _run(original, trial, inputs)
    for module, tried in zip(pruned.modules(), trial.modules(), strict=True):
        if isinstance(module, _BARE_NORMS) and not _has_tensors(module):
            _copy_sizes(tried, module)
    if reference is not None:
        _compare(reference, trial, inputs, got, weights)


def _settle_attributes(
    pruned: nn.Module, plan: Recipe, inputs: Sequence[Tensor], reference: _Reference
) -> bool:
    """Set attributes so that the outputs are those of the program; otherwise ``pruned`` is unchanged."""
    expected = reference.outputs(inputs)
    trial = _trial(pruned)
    _take_weights(trial, reference.program)
    for changes in attempts(trial, plan.module_sizes):
        undo = put(trial, changes)
        if _computes(trial, inputs, expected):
            put(pruned, changes)
            names = sorted({change.attribute for change in changes})
            _log.info("attributes follow the smaller widths: %s", listed(names))
            return True
        put(trial, undo)
    return False


@torch.no_grad()
def _computes(trial: nn.Module, inputs: Sequence[Tensor], expected: list[Tensor]) -> bool:
    try:
        with ended_in_the_open():
            return _difference(expected, tensor_leaves(trial(*inputs))) <= TOLERANCE
    except Exception:  # whatever wrong sizes raise in the user's code
        return False


def _trial(pruned: nn.Module) -> nn.Module:
    """A copy to run, whose norms without parameters take their sizes from their inputs."""
    trial = _plain_copy(pruned)
    for module in trial.modules():
        if isinstance(module, _BARE_NORMS) and not _has_tensors(module):
            module.register_forward_pre_hook(_fit_norm)
    return trial


def _plain_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to(device="cpu").float().eval()


def _take_weights(trial: nn.Module, program: ExportedProgram) -> None:
    """Load the program's weights, so that only the structure is compared."""
    tensors = {**program.state_dict, **program.constants}
    own = (trial.named_parameters(remove_duplicate=False), trial.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, value in itertools.chain(*own):
            given = tensors.get(plain_name(name))
            if isinstance(given, Tensor) and given.shape == value.shape:
                value.copy_(given)


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in (*module.parameters(), *module.buffers()))


def _fit_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    channels = int(inputs[0].shape[1])
    if not isinstance(module, nn.GroupNorm):
        setattr(module, "num_features", channels)  # noqa: B010 - several classes, one attribute
        return
    in_a_group = module.num_channels // module.num_groups
    if channels % in_a_group == 0:
        module.num_groups, module.num_channels = channels // in_a_group, channels


def _copy_sizes(source: nn.Module, destination: nn.Module) -> None:
    for name in ("num_features", "num_groups", "num_channels"):
        if hasattr(source, name):
            setattr(destination, name, getattr(source, name))


@torch.no_grad()
def _run(original: nn.Module, trial: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    try:
        with ended_in_the_open():
            return tensor_leaves(trial(*inputs))
    except Exception as error:
        failure = error
    shape = " and ".join("x".join(str(s) for s in i.shape[1:]) or "scalar" for i in inputs)
    try:
        with ended_in_the_open():
            _plain_copy(original)(*inputs)
    except Exception as error:
        raise SurgeryError(
            f"the given model itself does not run on images of {shape}, the recipe's input shape "
            f"({first_line(error)}); give the model that was compressed, with constants= where "
            "inputs of it were constant (--input)"
        ) from error
    place = _place(raised_in(failure), trial)
    raise SurgeryError(
        f"the pruned model does not run on images of {shape}: {place} conflicts with the smaller widths "
        f"({first_line(failure)}); take that size from the tensor or layer there, {_INSTEAD}"
    ) from failure


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    step = error.__traceback__
    while step is not None:
        yield step.tb_frame, step.tb_lineno
        step = step.tb_next


def _place(error: BaseException, model: nn.Module) -> str:
    """The innermost line in the files of the model's own classes, or the layer of torch that failed."""
    outside = [(f, n) for f, n in _frames(error) if not f.f_code.co_filename.startswith(_NOT_THE_USERS)]
    files = {f.f_code.co_filename for f, _ in outside if isinstance(f.f_locals.get("self"), nn.Module)}
    own = [(f, n) for f, n in outside if f.f_code.co_filename in files]
    if own:
        frame, number = own[-1]
        source = linecache.getline(frame.f_code.co_filename, number).strip()
        return f"{frame.f_code.co_filename}:{number}" + (f" ({source})" if source else "")
    names = {id(module): name for name, module in model.named_modules()}
    inside = [m for f, _ in _frames(error) if id(m := f.f_locals.get("self")) in names and m is not model]
    return f"{names[id(inside[-1])]!r} ({inside[-1]})" if inside else "its forward pass"


@torch.no_grad()
def _compare(
    reference: _Reference,
    trial: nn.Module,
    inputs: Sequence[Tensor],
    got: list[Tensor],
    weights: str | None,
) -> None:
    expected = reference.outputs(inputs)
    difference = _difference(expected, got)
    if difference <= TOLERANCE:
        return
    if weights is not None:
        _take_weights(trial, reference.program)
        if _difference(expected, tensor_leaves(trial(*inputs))) <= TOLERANCE:
            raise SurgeryError(
                f"{weights!r} holds other weights than {str(reference.path)!r} (outputs differ by "
                f"{difference:.1g} of the largest); give the weights of the same run as the recipe"
            )
    raise SurgeryError(
        f"the pruned model runs, but its outputs are not those of {str(reference.path)!r} (they differ by "
        f"{difference:.1g} of the largest): its class has a channel count or an order of channels in its "
        f"Python code, such as a fixed split, slice or shuffle; take it from the tensor there, {_INSTEAD}"
    )


def _difference(expected: list[Tensor], got: list[Tensor]) -> float:
    """Largest difference over all outputs, relative to each output's largest; infinite if shapes differ."""
    if [t.shape for t in expected] != [t.shape for t in got]:
        return float("inf")
    differences = [0.0]
    for one, two in zip(expected, got, strict=True):
        scale = float(one.abs().max()) or 1.0
        value = float((one - two).abs().max()) / scale
        differences.append(float("inf") if math.isnan(value) else value)
    return max(differences)
