"""Command line over ``edgeprune.toml`` over defaults, and what is found beside the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.artifacts.calibration import ChannelOrder, Preprocessing
from edgeprune.cli.process.session import Session
from edgeprune.cli.process.settings import (
    choose_calibration,
    choose_preprocessing,
    default_output,
    project_config,
)
from edgeprune.errors import CalibrationError, ModelLoadError, UsageError
from edgeprune.options.cards import PreprocessingOptions
from edgeprune.options.project_file import ProjectConfig


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "net.pt2"
    path.touch()
    return str(path)


def choose(model: str, option: str | None = None) -> str:
    session = Session()
    return choose_calibration(option, model, project_config(model, session), session)


def test_the_option_wins_over_the_file_over_the_folder(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "calibration").mkdir()
    assert choose(model) == str(tmp_path / "calibration")
    assert "found beside the model" in capsys.readouterr().err
    (tmp_path / "edgeprune.toml").write_text('calibration = "images"')
    assert choose(model) == str(tmp_path / "images")
    assert str(tmp_path / "edgeprune.toml") in capsys.readouterr().err
    assert choose(model, "given.npz") == "given.npz"


def test_one_array_file_in_the_folder_is_taken_and_several_are_not(model: str, tmp_path: Path) -> None:
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "a.npz").touch()
    assert choose(model) == str(tmp_path / "calibration" / "a.npz")
    (tmp_path / "calibration" / "b.npz").touch()
    with pytest.raises(CalibrationError, match=r"several .npz files \(a.npz, b.npz\)"):
        choose(model)


def test_without_any_data_the_sentence_says_what_to_do(model: str) -> None:
    with pytest.raises(CalibrationError, match="give --calibration with a folder"):
        choose(model)


def test_a_missing_model_is_said_before_missing_data(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no model file"):
        choose(str(tmp_path / "none.pt"))


def test_a_model_by_name_looks_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CalibrationError):
        choose("torchvision:resnet18")
    (tmp_path / "calibration").mkdir()
    assert choose("torchvision:resnet18") == "calibration"


def test_without_a_project_file_nothing_is_set_and_nothing_said(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project_config(model, Session()) == ProjectConfig()
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edgeprune.toml").write_text('calibration = "images"')
    session = Session(quiet=True)
    choose_calibration(None, model, project_config(model, session), session)
    assert capsys.readouterr().err == ""


def test_the_default_output_is_named_after_the_model(model: str) -> None:
    assert default_output(model) == Path("net-edgeprune")
    assert default_output("torchvision:resnet18") == Path("resnet18-edgeprune")
    assert default_output("somewhere/other.pt") == Path("other-edgeprune")


def test_preprocessing_options_win_over_the_file_over_the_card(tmp_path: Path) -> None:
    (tmp_path / "data.npz").touch()
    (tmp_path / "data.toml").write_text('resize = 99\ncrop = 88\nmean = [0.9]\nchannel_order = "bgr"')
    config = ProjectConfig(preprocessing=PreprocessingOptions(crop=44, mean=(0.4,), std=(0.7,)))
    options = PreprocessingOptions(channel_order=ChannelOrder.RGB)
    found = choose_preprocessing(str(tmp_path / "data.npz"), options, "0.1,0.2,0.3", None, config)
    assert found == Preprocessing(
        resize=99, crop=44, mean=(0.1, 0.2, 0.3), std=(0.7,), channel_order=ChannelOrder.RGB
    )


def test_without_any_word_on_preprocessing_the_data_are_taken_as_they_are(tmp_path: Path) -> None:
    nothing = PreprocessingOptions()
    assert choose_preprocessing(str(tmp_path / "x.npz"), nothing, None, None, ProjectConfig()) is None


def test_a_mean_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="--mean"):
        choose_preprocessing("x.npz", PreprocessingOptions(), "a,b", None, ProjectConfig())
