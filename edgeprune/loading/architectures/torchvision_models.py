"""Models of torchvision by name, with random or downloaded weights."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import sys
from collections.abc import Mapping
from typing import Any
from urllib.error import URLError

from torch import nn

from edgeprune.errors import ModelLoadError
from edgeprune.loading.architectures.keywords import build_named, options_text
from edgeprune.system.compat import import_torchvision
from edgeprune.system.imports import first_line


def build_torchvision(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A torchvision model with random weights; ``options`` go to its class.

    Raises:
        ModelLoadError: there is no such name, or it cannot be built that way.
    """
    check_torchvision_name(name)
    models = import_torchvision().models
    given = dict(options)
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        # Segmentation and detection models download their backbone's weights unless told otherwise.
        given.setdefault("weights_backbone", None)
    if name in {"googlenet", "inception_v3"}:
        given.setdefault("init_weights", False)
    return build_named(
        f"torchvision:{name}", lambda more: models.get_model(name, weights=None, **more), given
    )


def build_pretrained(name: str, weights: str, options: Mapping[str, Any]) -> tuple[nn.Module, str]:
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
            module = models.get_model(name, weights=member, progress=watched, **options)
    except (TypeError, ValueError) as error:
        raise ModelLoadError(
            f"torchvision:{name} with the weights {member} cannot be built with "
            f"{options_text(options)} ({first_line(error)}); leave --arch-kwargs out, or give --weights none"
        ) from error
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
