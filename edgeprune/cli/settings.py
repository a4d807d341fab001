"""What a command works with once the command line, ``edgeprune.toml`` and the defaults are joined."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.cli.session import Session
from edgeprune.config import PreprocessingOptions, ProjectConfig, find_config, load_config
from edgeprune.errors import CalibrationError, ModelLoadError

if TYPE_CHECKING:
    from edgeprune.artifacts.calibration import Preprocessing

_CALIBRATION_FOLDER = "calibration"


def project_folder(model: str) -> Path:
    """Folder to look for a project's files in: the model's, or the current one for a model given by name."""
    return Path(model).parent if Path(model).exists() else Path()


def project_config(model: str, session: Session) -> ProjectConfig:
    """The ``edgeprune.toml`` beside the model; all ``None`` where there is none.

    Raises:
        UsageError: the file is malformed.
    """
    found = find_config(project_folder(model))
    if found is None:
        return ProjectConfig()
    session.say(f"defaults from {found}")
    return load_config(found)


def choose_calibration(option: str | None, model: str, config: ProjectConfig, session: Session) -> str:
    """The calibration data: the option, the project file, or the ``calibration`` folder beside the model.

    Raises:
        CalibrationError: there is none, or the folder holds several .npz files.
        ModelLoadError: there is none and no such model file either, which is the first thing to correct.
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
    if ":" not in model and not Path(model).exists():
        raise ModelLoadError(f"no model file {model!r}; give the path of a model, or torchvision:NAME")
    raise CalibrationError(
        "no calibration data: give --calibration with a folder of images, an .npz file or "
        f"package.module:function, or put a {_CALIBRATION_FOLDER} folder or an edgeprune.toml beside "
        "the model"
    )


def _data_in(folder: Path) -> Path:
    """The folder itself, or the one .npz file in it."""
    arrays = sorted(folder.glob("*.npz"))
    if len(arrays) > 1:
        names = ", ".join(path.name for path in arrays)
        raise CalibrationError(f"{folder} holds several .npz files ({names}); choose one with --calibration")
    return arrays[0] if arrays else folder


def default_output(model: str) -> Path:
    """``MODELSTEM-edgeprune`` in the current folder."""
    name = model.rpartition(":")[2] if not Path(model).exists() else model
    return Path(f"{Path(name).stem}-edgeprune")


def choose_preprocessing(
    options: PreprocessingOptions, mean: str | None, std: str | None, config: ProjectConfig
) -> Preprocessing | None:
    """Preprocessing from options over the project file over the card; ``None``: the card beside the data.

    Raises:
        UsageError: a value or the card is not accepted.
    """
    from edgeprune.cards import load_card, merge_preprocessing, parse_floats

    asked = PreprocessingOptions(
        card=options.card or config.preprocessing.card,
        resize=options.resize or config.preprocessing.resize,
        crop=options.crop or config.preprocessing.crop,
        mean=config.preprocessing.mean if mean is None else parse_floats(mean, option="--mean"),
        std=config.preprocessing.std if std is None else parse_floats(std, option="--std"),
        channel_order=options.channel_order or config.preprocessing.channel_order,
    )
    if asked == PreprocessingOptions():
        return None
    return merge_preprocessing(
        load_card(asked.card) if asked.card else None,
        resize=asked.resize,
        crop=asked.crop,
        mean=asked.mean,
        std=asked.std,
        channel_order=asked.channel_order,
    )
