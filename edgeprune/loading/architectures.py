"""Turn ``torchvision:NAME`` or ``package.module:factory`` into a module."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import sys
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelLoadError
from edgeprune.system.compat import import_torchvision
from edgeprune.system.imports import call_user_function, first_line

TORCHVISION_PREFIX = "torchvision:"


def build(architecture: str, state: dict[str, Tensor] | None = None) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the module of an architecture with arbitrary but reproducible weights; returns it and notes.

    ``state`` holds the weights to load later: a torchvision model gets their number of classes.

    Raises:
        ModelLoadError: the architecture is unknown, fails to build, or is no ``nn.Module``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if architecture.startswith(TORCHVISION_PREFIX):
            return _build_torchvision(architecture.removeprefix(TORCHVISION_PREFIX), state)
        if ":" not in architecture:
            raise _not_an_architecture(architecture)
        module = call_user_function(architecture, what="architecture", error=ModelLoadError)
    if not isinstance(module, nn.Module):
        raise ModelLoadError(
            f"architecture {architecture!r} returned {type(module).__name__}; "
            "it has to return a torch.nn.Module"
        )
    return module, ()


def build_pretrained(name: str, weights: str) -> tuple[nn.Module, str]:
    """A torchvision model with downloaded weights (``DEFAULT`` or a name such as ``IMAGENET1K_V1``).

    Returns the module and the full name of its weights.

    Raises:
        ModelLoadError: the name or the weights are unknown, or cannot be downloaded.
    """
    check_torchvision_name(name)
    models = import_torchvision().models
    available = models.get_model_weights(name)
    chosen = "DEFAULT" if weights.lower() == "default" else weights
    names = [member.name for member in available]
    if chosen != "DEFAULT" and chosen not in names:
        raise ModelLoadError(
            f"weights {weights!r} are neither a file nor weights of torchvision:{name}; "
            f"give a file, 'default', 'none' or one of {', '.join(names) or '(it has none)'}"
        )
    if not names:
        raise ModelLoadError(f"torchvision offers no weights for {name!r}; give a file or 'none' as weights")
    member = available[chosen]
    watched = sys.stderr.isatty()
    try:
        # torch.hub announces a download on stdout, which is for results only.
        with contextlib.redirect_stdout(sys.stderr if watched else io.StringIO()):
            module = models.get_model(name, weights=member, progress=watched)
    except (URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        text = getattr(reason, "strerror", None) or first_line(error)
        raise ModelLoadError(
            f"the weights {member} of torchvision:{name} could not be downloaded ({text}); "
            "give a file with --weights, or --weights none for random ones"
        ) from error
    return module, str(member)


def nominal_input_shape(name: str) -> tuple[int, ...] | None:
    """(channels, height, width) that torchvision's weights of an image classifier expect."""
    models = import_torchvision().models
    if name not in models.list_models(module=models):
        return None
    weights = list(models.get_model_weights(name))
    if not weights:
        return None
    crop = getattr(models.get_model_weights(name)["DEFAULT"].transforms(), "crop_size", None)
    return (3, int(crop[0]), int(crop[0])) if crop else None


def check_torchvision_name(name: str) -> None:
    """Check that torchvision has a model of this name.

    Raises:
        ModelLoadError: it has none; the nearest names are suggested.
    """
    known = import_torchvision().models.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see torchvision.models.list_models()"
        raise ModelLoadError(f"torchvision has no model {name!r}; {hint}")


def is_torchvision_name(name: str) -> bool:
    """Whether torchvision has a model of this name."""
    return name in import_torchvision().models.list_models()


def _not_an_architecture(architecture: str) -> ModelLoadError:
    hint = ""
    if is_torchvision_name(architecture):
        hint = f"; did you mean torchvision:{architecture}?"
    return ModelLoadError(
        f"architecture {architecture!r} is not understood; give torchvision:NAME, package.module:function "
        f"or path/to/file.py:function{hint}"
    )


def _build_torchvision(name: str, state: dict[str, Tensor] | None) -> tuple[nn.Module, tuple[str, ...]]:
    check_torchvision_name(name)
    module = _instantiate(name)
    classes = _classes_of(module, state) if state else None
    if classes is None:
        return module, ()
    return _instantiate(name, num_classes=classes), (
        f"torchvision:{name} was built for the {classes} classes of the given weights",
    )


def _instantiate(name: str, **options: Any) -> nn.Module:
    models = import_torchvision().models
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        # Segmentation and detection models download their backbone's weights unless told otherwise.
        options["weights_backbone"] = None
    if name in {"googlenet", "inception_v3"}:
        options["init_weights"] = False
    try:
        module: nn.Module = models.get_model(name, weights=None, **options)
    except Exception as error:
        raise ModelLoadError(f"torchvision:{name} cannot be built ({first_line(error)})") from error
    return module


def _classes_of(module: nn.Module, state: dict[str, Tensor]) -> int | None:
    """Number of classes in ``state`` where only the size of the last layer differs from ``module``."""
    sizes = set()
    for key, reference in module.state_dict().items():
        given = state.get(key)
        if given is None or given.shape == reference.shape:
            continue
        if given.dim() != reference.dim() or given.dim() == 0 or given.shape[1:] != reference.shape[1:]:
            return None
        sizes.add((int(reference.shape[0]), int(given.shape[0])))
    return sizes.pop()[1] if len(sizes) == 1 else None
