"""Settings of a command, joined from the command line, ``edgeprune.toml`` and the defaults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from edgeprune.cli.process.session import Session
from edgeprune.errors import CalibrationError, ModelLoadError
from edgeprune.options.cards import PreprocessingOptions
from edgeprune.options.project_file import ProjectConfig, find_config, load_config

if TYPE_CHECKING:
    from edgeprune.artifacts.calibration import Preprocessing

_CALIBRATION_FOLDER = "calibration"


def project_folder(model: str) -> Path:
    """Folder of a project's files: the model's, or the current one for a model given by name."""
    return Path() if is_name(model) else Path(model).parent


def is_name(model: str) -> bool:
    """Whether a model is given by name, such as ``torchvision:resnet18``, and not by its path."""
    return ":" in model and not Path(model).exists()


def project_config(model: str, session: Session) -> ProjectConfig:
    """The ``edgeprune.toml`` beside the model; all ``None`` if there is none.

    Raises:
        UsageError: the file is malformed.
    """
    path = find_config(project_folder(model))
    if path is None:
        return ProjectConfig()
    session.say(f"defaults from {path}")
    return load_config(path)


def choose_calibration(option: str | None, model: str, config: ProjectConfig, session: Session) -> str:
    """The calibration data: the option, the project file, or the ``calibration`` folder beside the model.

    Raises:
        CalibrationError: there is none, or the folder holds several .npz files.
        ModelLoadError: there is none, and the model file does not exist either; reported first.
    """
    if option is not None:
        return option
    if config.calibration is not None:
        session.say(f"calibration data: {config.calibration} (from {config.source})")
        return config.calibration
    folder = project_folder(model) / _CALIBRATION_FOLDER
    if folder.is_dir():
        chosen = _data_in(folder)
        session.say(f"calibration data: {chosen} (found beside the model)")
        return str(chosen)
    if Path(model).is_dir():
        raise ModelLoadError(f"{model!r} is a folder; give the model file in it, or torchvision:NAME")
    if not is_name(model) and not Path(model).exists():
        raise ModelLoadError(f"no model file {model!r}; give the path of a model, or torchvision:NAME")
    raise CalibrationError(
        "no calibration data: give --calibration with a folder of images, an .npz file or "
        f"package.module:function, or put a {_CALIBRATION_FOLDER} folder or an edgeprune.toml beside "
        "the model"
    )


def calibration_for_shape(
    option: str | None,
    given: tuple[int, ...] | tuple[tuple[int, ...], ...] | None,
    model: str,
    config: ProjectConfig,
) -> str | None:
    """Data to infer the input's shape from if none is given: those that ``compress`` would use."""
    if option is not None or config.calibration is not None or given is not None:
        return option or config.calibration
    folder = project_folder(model) / _CALIBRATION_FOLDER
    return str(_data_in(folder)) if folder.is_dir() else None


def _data_in(folder: Path) -> Path:
    """The folder itself, or the one .npz file in it."""
    arrays = sorted(folder.glob("*.npz"))
    if len(arrays) > 1:
        names = ", ".join(path.name for path in arrays)
        raise CalibrationError(f"{folder} holds several .npz files ({names}); choose one with --calibration")
    return arrays[0] if arrays else folder


@overload
def first_given(option: str | None, default: str) -> str: ...


@overload
def first_given(option: str | None, default: str | None) -> str | None: ...


def first_given(option: str | None, default: str | None) -> str | None:
    """The option if it was given, else the default; its reader rejects empty values."""
    return default if option is None else option


def default_output(model: str, *, kind: str = "edgeprune") -> Path:
    """``MODELSTEM-KIND`` in the current folder."""
    name = model.rpartition(":")[2] if is_name(model) else model
    return Path(f"{Path(name).stem}-{kind}")


def choose_preprocessing(
    data: str, options: PreprocessingOptions, mean: str | None, std: str | None, config: ProjectConfig
) -> Preprocessing | None:
    """Preprocessing of ``data``: options over the project file over the card named or beside the data.

    Raises:
        UsageError: a value or the name of a card is not accepted.
        CalibrationError: the card is malformed.
    """
    from edgeprune import limits
    from edgeprune.options.cards import check_preprocessing, parse_floats, resolve_preprocessing

    means = None if mean is None else parse_floats(mean, option="--mean", numbers=limits.MEANS)
    deviations = None if std is None else parse_floats(std, option="--std", numbers=limits.DEVIATIONS)
    asked = replace(options, mean=means, std=deviations).over(config.preprocessing)
    preprocessing = resolve_preprocessing(data, asked)
    if preprocessing is not None:
        check_preprocessing(preprocessing)
    return preprocessing
