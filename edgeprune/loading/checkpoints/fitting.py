"""Load a state_dict into an architecture: by its own ``load_state_dict``, else with its keys repaired."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from edgeprune.errors import ModelLoadError
from edgeprune.loading.architectures.building import Architecture
from edgeprune.loading.checkpoints.containers import left_out_as
from edgeprune.loading.checkpoints.key_repair import Candidate, candidates, same_weights
from edgeprune.loading.checkpoints.state import StateDict
from edgeprune.loading.tensors import check_conversion
from edgeprune.showing import first_few, in_short, shown_in_cell
from edgeprune.system.imports import user_code

_LISTED = 5
_LONGEST_FAULT = 150
_OF_TRAINING = re.compile(
    r"(.*_)?(loss(es)?|loss_(fn|func|function)|criterion|criteria|metrics?|optimi[sz]ers?|(lr_)?schedulers?"
    r"|acc(uracy)?|auroc|f1|n_averaged)(_.*)?",
    re.IGNORECASE,
)
"""First parts of keys of what is no part of a network: losses, metrics, optimizers and their counters."""
_COUNTED = frozenset({"total_ops", "total_params"})
"""Last parts of keys that counters of operations leave on every layer."""
_TORCH_REFUSED = "Error(s) in loading state_dict"


@dataclass
class _Attempt:
    """A module after a state_dict was loaded into it, and what did not fit."""

    module: nn.Module
    state: StateDict
    accepted: set[str]
    expected: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    left_out: list[str]
    other_sizes: list[str]
    fault: ModelLoadError | None = None
    note: str | None = None

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.other_sizes or self.fault)

    @property
    def problems(self) -> str:
        told = [
            f"{len(items)} {what}: {_listed(items)}"
            for what, items in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("of another size", self.other_sizes),
            )
            if items
        ]
        return "; ".join(told)


def fit_state(architecture: Architecture, state: StateDict, source: str) -> tuple[nn.Module, list[str]]:
    """Build the architecture and load every tensor of ``state`` into it; returns it and notes.

    The module's own ``load_state_dict`` is asked first. Only where it refuses, names of wrappers are taken
    out of the keys, and entries of other objects are left out.

    Raises:
        ModelLoadError: keys are missing or unexpected, sizes differ, or types cannot be converted; two sets
            of weights in the file fit.
    """
    first = _attempt(architecture, state, source)
    if first.fits:
        return first.module, _finished(first, source, [], first.left_out)
    modules = {path for path, _ in first.module.named_modules() if path}
    networks = candidates(state, first.accepted, modules)
    chosen, attempt = _best(networks, architecture, state, source)
    if chosen is None or attempt is None:
        raise _refused(first, architecture, source)
    if not attempt.fits:
        unchanged = attempt.state.entries.keys() == state.entries.keys()
        raise _refused(first if unchanged else attempt, architecture, source)
    by_target = {r.target: key for key, r in chosen.renamings.items()}
    notes = chosen.notes()
    averages = [c for c in networks if c.averaged and c is not chosen]
    if averages and not chosen.averaged:
        role = averages[0].role
        notes.append(f"averaged weights under {role!r} were not used (--weights-key {role} takes them)")
    elif chosen.averaged:
        fitting = [c.role for c in averages if _attempt(architecture, c.state(state), source).fits]
        others = [*_prefixes_that_fit(chosen, attempt, state), *fitting]
        notes.append(_note_of_average(chosen.role, others))
    left_out = [*chosen.outside, *(by_target[key] for key in attempt.left_out)]
    return attempt.module, _finished(attempt, source, notes, left_out)


def _note_of_average(taken: str, others: list[str]) -> str:
    """That an average was taken, and under which names the file has other weights that fit."""
    told = f"the averaged weights under {taken!r} were taken"
    shown = list({name.partition(".")[0]: shown_in_cell(name) for name in reversed(others)}.values())[::-1]
    if not shown:
        return f"{told}; no others that fit were found in the file"
    ways = f"--weights-key {shown[0]} takes {'them' if len(shown) == 1 else 'the first'}"
    return f"{told}, though others fit, under {first_few([repr(name) for name in shown], _LISTED)} ({ways})"


def _prefixes_that_fit(chosen: Candidate, attempt: _Attempt, state: StateDict) -> list[str]:
    """Names of whatever kind under which the file has other tensors for all those that were loaded."""
    wanted = {key: value.shape for key, value in attempt.state.tensors.items()}
    first, given = max(wanted, key=len, default=""), state.tensors
    ends = [key for key in given if key.endswith(f".{first}") and key not in chosen.renamings]
    return [
        head
        for head in (key[: -len(first) - 1] for key in ends)
        if all(_has(given, f"{head}.{key}", shape) for key, shape in wanted.items())
    ]


def _has(tensors: dict[str, Tensor], key: str, shape: torch.Size) -> bool:
    return key in tensors and tensors[key].shape == shape


def _best(
    networks: list[Candidate], architecture: Architecture, state: StateDict, source: str
) -> tuple[Candidate | None, _Attempt | None]:
    """The network of the file that fits; where none does, the one with the most keys that do.

    Raises:
        ModelLoadError: two with different weights fit.
    """
    chosen: tuple[Candidate | None, _Attempt | None] = None, None
    for network in networks:
        if chosen[1] is not None and chosen[1].fits and network.averaged:
            break
        attempt = _attempt(architecture, network.state(state), source)
        if attempt.fits and network.rivals is not None:
            raise _ambiguous(*network.rivals, architecture, source)
        before, best = chosen
        if before is None or best is None or (attempt.fits and not best.fits):
            chosen = network, attempt
        elif attempt.fits and before.role + "".join(before.root):
            if not same_weights(best.state, attempt.state):
                pair = (next(iter(before.renamings)), next(iter(network.renamings)))
                raise _ambiguous(*pair, architecture, source)
        elif not best.fits and len(best.missing) > len(attempt.missing):
            chosen = network, attempt
    return chosen


def _ambiguous(first: str, second: str, architecture: Architecture, source: str) -> ModelLoadError:
    heads = " or ".join(dict.fromkeys(key.partition(".")[0] for key in (first, second)))
    return ModelLoadError(
        f"the weights in {source!r} fit {architecture.name!r} in two ways, {shown_in_cell(first)!r} and "
        f"{shown_in_cell(second)!r} for the same layer with different values; choose one with --weights-key "
        f"{heads}"
    )


def _refused(attempt: _Attempt, architecture: Architecture, source: str) -> ModelLoadError:
    if attempt.fault is not None:
        return attempt.fault
    return ModelLoadError(
        f"the weights in {source!r} do not fit {architecture.name!r}: {attempt.problems}; "
        "give the architecture that they were trained with"
    )


def _finished(attempt: _Attempt, source: str, notes: list[str], left_out: list[str]) -> list[str]:
    """Notes of a fit; checks that types can be converted."""
    given, expected = attempt.state.tensors, attempt.expected
    both = [key for key in expected if key in given]
    for key in both:
        check_conversion(key, given[key], expected[key], source)
    if attempt.note is not None:
        notes = [*notes, attempt.note]
    if left_out:
        shown = [shown_in_cell(key) for key in left_out]
        told = left_out_as(shown, "no part of the model", "no part of the model")
        notes = [*notes, f"{told}: {first_few(shown, _LISTED)}"]
    if any(given[key].is_floating_point() and given[key].dtype != expected[key].dtype for key in both):
        notes = [*notes, "weights of another floating-point type were converted to that of the architecture"]
    return notes


def _attempt(architecture: Architecture, state: StateDict, source: str) -> _Attempt:
    """Load into a new module; one with as many classes as the weights have, where only that differs."""
    attempt = _loaded(architecture, architecture.build(), state, source)
    classes = _classes_of(attempt) if architecture.can_change_classes and attempt.other_sizes else None
    if classes is None:
        return attempt
    changed = _loaded(architecture, architecture.build(classes), state, source)
    changed.note = f"{architecture.name} was built for the {classes} classes of the given weights"
    return changed if changed.fits else attempt


def _loaded(architecture: Architecture, module: nn.Module, state: StateDict, source: str) -> _Attempt:
    what, remedy = f"{architecture.name!r}, given the weights in {source!r},", "repair its methods and hooks"
    with user_code(f"state_dict of {architecture.name!r}", ModelLoadError, remedy):
        entries = module.state_dict()
    fault, answer, refusal = None, None, ""
    try:
        with user_code(what, ModelLoadError, f"{remedy} that load weights"):
            try:
                answer = module.load_state_dict(state.as_torch(), strict=False)
            except RuntimeError as error:
                if not str(error).startswith(_TORCH_REFUSED):
                    raise
                refusal = str(error)
    except ModelLoadError as raised:
        fault = raised
    expected = {k: v for k, v in entries.items() if isinstance(v, Tensor) and not is_lazy(v)}
    missing, unexpected = _left(module, set(entries), state, answer)
    children = {key.partition(".")[0] for key in entries}
    left_out = [key for key in unexpected if _is_of_training(key, children)]
    sizes = _other_sizes(expected, state.tensors, only_cut=not refusal)
    if refusal and not sizes:
        sizes = [in_short(line.strip(), _LONGEST_FAULT) for line in refusal.splitlines()[1:] if line.strip()]
    unexpected = [key for key in unexpected if key not in left_out]
    return _Attempt(module, state, set(entries), expected, missing, unexpected, left_out, sizes, fault)


def _left(
    module: nn.Module, accepted: set[str], state: StateDict, answer: Any
) -> tuple[list[str], list[str]]:
    """Keys that are missing and unexpected, by the answer of ``load_state_dict`` where it has them."""
    missing = getattr(answer, "missing_keys", None)
    unexpected = getattr(answer, "unexpected_keys", None)
    if missing is None or unexpected is None:
        missing = [key for key in accepted if key not in state.entries]
        unexpected = [key for key in state.entries if key not in accepted]
    # safetensors saves a tensor with two names once.
    loaded = {id(t) for name, t in _all_tensors(module) if name in state.entries}
    tied = {name for name, t in _all_tensors(module) if id(t) in loaded}
    # Older files lack the counters of batch normalisation, which evaluation does not use.
    needed = [key for key in missing if key not in tied and not key.endswith("num_batches_tracked")]
    return needed, list(unexpected)


def _is_of_training(key: str, children: set[str]) -> bool:
    first, _, _ = key.partition(".")
    foreign = first not in children and _OF_TRAINING.fullmatch(first) is not None
    return foreign or key.rpartition(".")[2] in _COUNTED


def _other_sizes(expected: dict[str, Tensor], given: dict[str, Tensor], *, only_cut: bool) -> list[str]:
    """Tensors of another size; with ``only_cut`` those of which torch would take the first value in silence.

    A lone value may be saved as a list of one, and hooks of a module that torch accepts may change sizes.
    """
    return [
        f"{key} is {_shape(given[key])} instead of {_shape(reference)}"
        for key, reference in expected.items()
        if key in given
        and given[key].shape != reference.shape
        and not (reference.dim() == 0 and given[key].shape == torch.Size([1]))
        and (not only_cut or (reference.dim() == 0 and given[key].dim() == 1))
    ]


def _classes_of(attempt: _Attempt) -> int | None:
    """Number of classes in the weights where only the size of the last layer differs."""
    given, sizes = attempt.state.tensors, set()
    for key, reference in attempt.expected.items():
        value = given.get(key)
        if value is None or value.shape == reference.shape:
            continue
        if value.dim() != reference.dim() or value.dim() == 0 or value.shape[1:] != reference.shape[1:]:
            return None
        sizes.add((int(reference.shape[0]), int(value.shape[0])))
    return sizes.pop()[1] if len(sizes) == 1 else None


def _all_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]


def _listed(items: list[str]) -> str:
    return first_few([shown_in_cell(item) for item in items], _LISTED)


def _shape(tensor: Tensor) -> str:
    return "x".join(str(s) for s in tensor.shape) or "a scalar"
