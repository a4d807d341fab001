"""Image models of transformers from a folder on this machine: its ``config.json``, and weights beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgeprune.errors import ModelLoadError
from edgeprune.loading.architectures.keywords import import_library, unknown_option
from edgeprune.storage.documents import UnreadableError, read_json
from edgeprune.system.compat import torchvision_repaired
from edgeprune.system.imports import ended_in_the_open, first_line

CONFIG = "config.json"
_LARGEST_CONFIG_BYTES = 8 << 20
_ALSO = ("num_labels",)
"""Settings that are no plain attribute of a configuration."""


def build_transformers(folder: str, options: Mapping[str, Any]) -> nn.Module:
    """The model that ``config.json`` of ``folder`` describes, with random weights; runs no code from there.

    ``options`` stand in for settings of the configuration.

    Raises:
        ModelLoadError: there is no such folder or configuration, or transformers cannot build from it.
    """
    architecture = _architecture_of(Path(folder))
    transformers = import_library("transformers", "hf:FOLDER")
    try:
        with torchvision_repaired(), ended_in_the_open():
            config = transformers.AutoConfig.from_pretrained(
                str(Path(folder)), local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise _unusable(folder, error) from error
    accepted = sorted({*config.to_dict(), *_ALSO})
    for name, value in options.items():
        if name not in accepted:
            raise unknown_option(f"hf:{folder}", name, accepted)
        setattr(config, name, value)
    if "attn_implementation" in (Path(folder) / CONFIG).read_text("utf-8"):
        config._attn_implementation = "eager"  # others may be code that is downloaded
    try:
        with torchvision_repaired(), ended_in_the_open():
            kind = getattr(transformers, architecture, None) if architecture else None
            if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
                module: nn.Module = kind(config)
            else:
                module = transformers.AutoModelForImageClassification.from_config(config)
    except Exception as error:
        raise _unusable(folder, error) from error
    return module


def transformers_input_shape(module: nn.Module) -> tuple[int, ...] | None:
    """(channels, height, width) of the images that a configuration tells, if it does."""
    config = getattr(module, "config", None)
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, tuple | list) or len(sides) != 2 or not isinstance(channels, int):
        return None
    return (channels, *(int(side) for side in sides))


def _architecture_of(folder: Path) -> str:
    """Name of the class that the configuration is of; empty where it tells none.

    Raises:
        ModelLoadError: no such folder, or no configuration that can be read in it.
    """
    if not folder.is_dir():
        raise ModelLoadError(
            f"hf:{folder} names the folder {str(folder)!r}, which does not exist; give one on this machine "
            f"with {CONFIG}, as save_pretrained writes it"
        )
    try:
        content = read_json(folder / CONFIG, most_bytes=_LARGEST_CONFIG_BYTES)
    except UnreadableError as error:
        raise ModelLoadError(
            f"{str(folder / CONFIG)!r} {error}; give a folder as save_pretrained of transformers writes it"
        ) from error
    names = content.get("architectures") if isinstance(content, Mapping) else None
    first = names[0] if isinstance(names, list) and names else ""
    return first if isinstance(first, str) else ""


def _unusable(folder: str, error: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"transformers cannot build a model from hf:{folder} ({first_line(error)}); give a folder of an "
        "image model that this version of transformers has"
    )
