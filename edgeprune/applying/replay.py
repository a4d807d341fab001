"""Replay a pruning on the user's own module: slice, follow with attributes, load weights, check."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.applying.check import check_replay
from edgeprune.applying.files import Recipe, listed, read_recipe, read_weights
from edgeprune.capture.constants import read_constants, with_constants
from edgeprune.errors import SurgeryError
from edgeprune.loading.tensors import check_conversion
from edgeprune.plain_names import plain_name
from edgeprune.system.imports import ended_in_the_open, first_line, raised_in

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
FIXED = (nn.MultiheadAttention,)
"""Modules that tie several widths of theirs together, so that a pruned one has no such module."""

LIFTED = "lifted_tensor_"
"""What ``torch.export`` calls a tensor that the forward pass makes in Python; no module has it."""

FOLDED = re.compile(r"(.*\.)?folded\d*\.weight")
"""Name of a tensor that the class computes in its forward pass, and the graph holds."""

PROGRAM_NAME = "model.pt2"


@dataclass(frozen=True, kw_only=True)
class Sliced:
    """How a tensor was sliced: its shape before, and kept positions by dimension."""

    before: torch.Size
    kept: Mapping[int, Tensor]


def apply_surgery(
    model: nn.Module,
    recipe: str | Path,
    weights: str | Path | None = None,
    *,
    check_against: str | Path | None = None,
    constants: Mapping[str, Any] | Sequence[str] | None = None,
) -> nn.Module:
    """A pruned copy of ``model``, of its own class, to be trained on; the given model is not changed.

    ``recipe`` is ``surgery.json`` and ``weights`` the ``weights.safetensors`` beside it; without weights
    those of ``model`` are kept. Parameters stay tied, trainable and on their device as they were. The copy
    is run on the recipe's input shape and its outputs are compared with those of the program
    ``check_against`` (by default the ``model.pt2`` beside the recipe, where there is one), to 1e-5 of the
    largest. ``constants`` are the inputs that were constant in the run (``--input``).

    Raises:
        SurgeryError: a file is missing or malformed, does not belong to this model or to the other files,
            or the class has a size in its Python code that the recipe cannot change.
        ModelLoadError: ``check_against`` is not a program that this version of torch can load.
    """
    plan = _for_names_of(model, read_recipe(Path(recipe)))
    program = _program_path(plan, check_against)
    _require_same_model(model, plan)
    bound = with_constants(model, read_constants(constants))
    pruned = _copy(bound)
    sliced = _slice(pruned, plan)
    for (name, before), after in zip(bound.named_modules(), pruned.modules(), strict=True):
        _follow(name, before, after, sliced)
    if weights is not None:
        _load(pruned, plan, Path(weights))
    check_replay(bound, pruned, plan, program, weights=None if weights is None else str(weights))
    for parameter in pruned.parameters():
        parameter.grad = None
    pruned.__class__ = type(model)
    return pruned


def _program_path(plan: Recipe, given: str | Path | None) -> Path | None:
    beside = plan.path.with_name(PROGRAM_NAME)
    path = (beside if beside.is_file() else None) if given is None else Path(given)
    if path is not None and not path.is_file():
        there = "is a folder" if path.is_dir() else "does not exist"
        raise SurgeryError(f"{str(path)!r} {there}; check_against takes the model.pt2 of the same run")
    return path


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _for_names_of(model: nn.Module, plan: Recipe) -> Recipe:
    """The recipe under the model's own names; one made from a program has plain names."""
    own = _own_names(model)
    return dataclasses.replace(
        plan,
        kept={own.get(name, name): dims for name, dims in plan.kept.items()},
        shapes={own.get(name, name): shape for name, shape in plan.shapes.items()},
        module_sizes={own.get(name, name): sizes for name, sizes in plan.module_sizes.items()},
    )


def _own_names(model: nn.Module) -> dict[str, str]:
    """Map from plain to own names of tensors and modules whose plain names differ."""
    names = dict.fromkeys((*named_tensors(model), *dict(model.named_modules())))
    for path, module in model.named_modules():
        attributes = [name for name, value in vars(module).items() if isinstance(value, Tensor)]
        names.update(dict.fromkeys(f"{path}.{name}" if path else name for name in attributes))
    plain = {plain_name(name): name for name in names}
    return {given: name for given, name in plain.items() if given not in names}


def _attribute(model: nn.Module, name: str) -> Tensor | None:
    """A tensor that is a plain attribute, neither parameter nor buffer."""
    parent, _, leaf = name.rpartition(".")
    try:
        value = vars(model.get_submodule(parent)).get(leaf)
    except AttributeError:
        return None
    return value if isinstance(value, Tensor) else None


def _is_made(name: str) -> bool:
    """Whether the class creates the tensor in its forward pass; its name may follow a submodule's."""
    return name.rpartition(".")[2].startswith(LIFTED) or FOLDED.fullmatch(name) is not None


def _find(model: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> Tensor | None:
    return tensors[name] if name in tensors else _attribute(model, name)


def _require_same_model(model: nn.Module, plan: Recipe) -> None:
    tensors = named_tensors(model)
    names = [n for n in {**plan.shapes, **plan.kept} if n in tensors or not _is_made(n)]
    missing = [n for n in names if _find(model, n, tensors) is None]
    if missing:
        wrapped = [n for n in tensors if n.startswith(("module.", "_orig_mod."))]
        advice = (
            f"this one is wrapped ({wrapped[0]!r}): give the module inside the wrapper, such as model.module"
            if wrapped and len(wrapped) == len(tensors)
            else "give the model that was compressed, with the same arguments of its class"
        )
        raise SurgeryError(
            f"{str(plan.path)!r} is the recipe of another model: it names {listed(missing)}, which the "
            f"given model does not have (it has {listed(list(tensors))}); {advice}"
        )
    if computed := [n for n in plan.kept if FOLDED.fullmatch(n) and n not in tensors]:
        raise SurgeryError(
            f"the class computes {listed(computed)} in its forward pass from other tensors, and only the "
            "result was pruned; go on with model.pt2, the rewritten graph, instead"
        )
    wrong = []
    for name in names:
        tensor = _find(model, name, tensors)
        assert tensor is not None
        shape = plan.shapes.get(name)
        if shape is not None and tuple(tensor.shape) != shape:
            wrong.append(f"{name} is {tuple(tensor.shape)} where the recipe says {shape}")
        for dim, keep in plan.kept.get(name, {}).items():
            if dim >= tensor.dim() or keep[-1] >= tensor.shape[dim]:
                wrong.append(f"{name} is {tuple(tensor.shape)}, too small for dimension {dim} of the recipe")
    if wrong:
        raise SurgeryError(
            f"{str(plan.path)!r} is the recipe of another model: {listed(wrong, quoted=False)}; give the "
            "model as it was before pruning, with the same arguments of its class"
        )


def _copy(model: nn.Module) -> nn.Module:
    try:
        with ended_in_the_open():
            return copy.deepcopy(model)
    except Exception as error:
        reason = first_line(raised_in(error))
        raise SurgeryError(
            f"the model cannot be copied by copy.deepcopy ({reason}); give a module without tensors that "
            "were computed from others, such as one just made by its class"
        ) from error


def _slice(model: nn.Module, plan: Recipe) -> dict[int, Sliced]:
    """Slice in place; returns how, by the identity of the new tensor."""
    tensors = named_tensors(model)
    jobs: dict[int, tuple[str, Tensor]] = {}
    for name, dims in plan.kept.items():
        tensor = _find(model, name, tensors)
        if tensor is None:
            continue
        other = jobs.setdefault(id(tensor), (name, tensor))[0]
        if not _same(plan.kept[other], dims):
            raise SurgeryError(
                f"{other} and {name} are one tensor in the given model, but the recipe keeps different "
                "parts of them; give the model that was compressed"
            )
    made = {key: _sliced(tensor, plan.kept[name]) for key, (name, tensor) in jobs.items()}
    for owner, leaf, value in _places(model):
        if id(value) in made:
            owner[leaf] = made[id(value)]
    for name, tensor in jobs.values():
        if name not in tensors:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, made[id(tensor)])
    return {
        id(made[key]): Sliced(before=tensor.shape, kept=plan.kept[name])
        for key, (name, tensor) in jobs.items()
    }


def _places(model: nn.Module) -> Iterator[tuple[dict[str, Tensor | None], str, Tensor | None]]:
    for module in model.modules():
        for owner in (module._parameters, module._buffers):
            for leaf, value in list(owner.items()):
                yield owner, leaf, value  # type: ignore[misc]


def _same(one: Mapping[int, Tensor], two: Mapping[int, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[dim], two[dim]) for dim in one)


def _sliced(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    value = tensor.detach()
    for dim, keep in dims.items():
        value = value.index_select(dim, keep.to(value.device))
    value = value.clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value, requires_grad=tensor.requires_grad)
    return value


def _follow(name: str, before: nn.Module, after: nn.Module, sliced: Mapping[int, Sliced]) -> None:
    """Update a layer's size attributes to match its tensors."""
    own = [sliced[id(p)] for p in (*after.parameters(), *after.buffers()) if id(p) in sliced]
    if not own:
        return
    if isinstance(after, nn.RNNBase):
        _follow_recurrent(after)
        return
    if isinstance(after, FIXED):
        raise SurgeryError(
            f"{name!r} is a {type(after).__name__}, which was pruned inside and cannot have those sizes; "
            "go on with model.pt2, the rewritten graph, instead"
        )
    old, new = _sizing(before), _sizing(after)
    if old is None or new is None:
        return
    groups = _groups(before)
    expected = layer_sizes(before, old.shape, groups)
    if any(getattr(before, k) != v for k, v in expected.items()):
        return
    firsts = [s.kept[0] for s in own if 0 in s.kept and s.before[0] == old.shape[0]]
    if groups > 1 and firsts:
        groups = int(torch.unique(firsts[0] // (old.shape[0] // groups)).numel())
    for key, value in layer_sizes(after, new.shape, groups).items():
        setattr(after, key, value)


def _follow_recurrent(module: nn.RNNBase) -> None:
    """Update the sizes and the list of weights of a recurrent module."""
    weights = [getattr(module, name) for name in module._flat_weights_names]
    module._flat_weights = weights
    module.input_size, module.hidden_size = weights[0].shape[1], weights[1].shape[1]


def _sizing(module: nn.Module) -> Tensor | None:
    """The tensor whose shape tells a layer's sizes."""
    for name in ("weight", "running_mean"):
        value = getattr(module, name, None)
        if isinstance(value, Tensor):
            return value
    return None


def _groups(module: nn.Module) -> int:
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        return module.groups
    return module.num_groups if isinstance(module, nn.GroupNorm) else 1


def layer_sizes(module: nn.Module, shape: torch.Size, groups: int) -> dict[str, object]:
    """The attributes of a layer that repeat the sizes of its weight; none for a class not known here."""
    if isinstance(module, CONVOLUTIONS):
        return {"in_channels": shape[1] * groups, "out_channels": shape[0], "groups": groups}
    if isinstance(module, TRANSPOSED):
        return {"in_channels": shape[0], "out_channels": shape[1] * groups, "groups": groups}
    if isinstance(module, nn.Linear):
        return {"in_features": shape[1], "out_features": shape[0]}
    if isinstance(module, NORMS):
        return {"num_features": shape[0]}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": shape[0], "num_groups": groups}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": shape[0]}
    if isinstance(module, nn.LayerNorm):
        return {"normalized_shape": tuple(shape)}
    return {}


def _load(model: nn.Module, plan: Recipe, path: Path) -> None:
    """Load every tensor of the file into the model, after comparing all names and shapes."""
    own = _own_names(model)
    weights = {own.get(name, name): value for name, value in read_weights(path).items()}
    tensors = named_tensors(model)
    targets: dict[int, str] = {}
    names = sorted(tensors, key=lambda n: (n not in plan.kept, n not in plan.shapes))
    for name in names:
        if name in weights:
            targets.setdefault(id(tensors[name]), name)
    needed = {**dict(model.state_dict(keep_vars=True))}
    missing = [n for n, t in needed.items() if isinstance(t, Tensor) and id(t) not in targets]
    extra = [n for n in weights if n not in tensors and not _of_the_graph(model, n)]
    wrong = [
        f"{n} is {tuple(weights[n].shape)} in the file and {tuple(tensors[n].shape)} in the pruned model"
        for n in sorted(targets.values())
        if weights[n].shape != tensors[n].shape
    ]
    faults = [f"{listed(missing)} not in the file"] * bool(missing)
    faults += [f"{listed(extra)} not in the model"] * bool(extra)
    faults += [listed(wrong, quoted=False)] * bool(wrong)
    if faults:
        raise SurgeryError(
            f"{str(path)!r} holds the weights of another run or model: {'; '.join(faults)}; give the "
            "weights.safetensors that lies beside the recipe"
        )
    with torch.no_grad():
        for name in targets.values():
            check_conversion(name, weights[name], tensors[name], str(path), error=SurgeryError)
            tensors[name].copy_(weights[name])


def _of_the_graph(model: nn.Module, name: str) -> bool:
    """Whether it is a constant of the rewritten graph that the class creates itself (checked by running)."""
    return _is_made(name) or name.startswith("_kept_of_") or _attribute(model, name) is not None
