"""The project file and the option values that it shares with the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeprune.artifacts.calibration import ChannelOrder
from edgeprune.errors import UsageError
from edgeprune.options.cards import PreprocessingOptions
from edgeprune.options.project_file import (
    ProjectConfig,
    check_ratio,
    find_config,
    load_config,
    parse_input_shape,
)

FULL = """
calibration = "data/images"
target = "rpi4"
ratio = 0.4
arch = "nets/mine.py:build"
input-shape = [3, 32, 32]
seed = 7
threads = 2

[preprocessing]
card = "imagenet"
resize = 40
crop = 32
mean = [0.1, 0.2, 0.3]
std = 0.5
channel-order = "bgr"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "edgeprune.toml"
    path.write_text(text)
    return path


def test_every_key_is_read_and_paths_count_from_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, FULL)
    assert load_config(path) == ProjectConfig(
        source=path,
        calibration=str(tmp_path / "data/images"),
        target="rpi4",
        ratio=0.4,
        arch=f"{tmp_path}/nets/mine.py:build",
        input_shape=(3, 32, 32),
        seed=7,
        threads=2,
        preprocessing=PreprocessingOptions(
            card="imagenet",
            resize=40,
            crop=32,
            mean=(0.1, 0.2, 0.3),
            std=(0.5,),
            channel_order=ChannelOrder.BGR,
        ),
    )


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    assert load_config(path) == ProjectConfig(source=path)


@pytest.mark.parametrize("name", ["package.module:function", "torchvision:resnet18"])
def test_what_is_no_path_stays(tmp_path: Path, name: str) -> None:
    config = load_config(written(tmp_path, f'calibration = "{name}"\narch = "{name}"'))
    assert (config.calibration, config.arch) == (name, name)


def test_a_card_with_a_file_name_is_a_path(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, '[preprocessing]\ncard = "mine.toml"'))
    assert config.preprocessing.card == str(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ratoi = 0.3", "unknown key 'ratoi'; did you mean 'ratio'? accepted: calibration, target"),
        ("zzz = 1", "unknown key 'zzz'; accepted"),
        ("[preprocesing]", "unknown key 'preprocesing'; did you mean 'preprocessing'?"),
        ("input_shape = '3x2x2'", "did you mean 'input-shape'?"),
        ("[preprocessing]\nmeen = 1", "unknown key 'preprocessing.meen'; did you mean 'mean'?"),
        ("preprocessing = 3", "[preprocessing] table"),
        ("ratio = 1.5", "'ratio' = 1.5, but the share of the MACs to cut, between 0 and 1"),
        ("ratio = '0.3'", "'ratio' = '0.3', but"),
        ("seed = -1", "'seed' = -1, but a whole number from 0 to"),
        ("threads = 0", "'threads' = 0, but a whole number from 1 to 1024"),
        ("threads = true", "'threads' = True, but"),
        ("target = 4", "'target' = 4, but a text in quotes is expected"),
        ("target = ''", "'target' = '', but"),
        ("input-shape = [3, 32]", "'input-shape' = [3, 32], but channels, height and width of one image"),
        ("[preprocessing]\nmean = 'a'", "'preprocessing.mean' = 'a', but"),
        ("[preprocessing]\nmean = []", "'preprocessing.mean' = [], but"),
        ("[preprocessing]\nstd = [nan]", "'preprocessing.std' = [nan], but"),
        ("[preprocessing]\nchannel-order = 'gbr'", "'rgb' or 'bgr' is expected"),
        ("ratio = ", "not valid TOML"),
        ("\x00", "not valid TOML"),
    ],
)
def test_what_is_not_accepted_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)) as caught:
        load_config(written(tmp_path, text))
    assert "edgeprune.toml" in str(caught.value)


def test_a_file_that_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "edgeprune.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        load_config(tmp_path / "edgeprune.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "none.toml")


def test_find_looks_in_one_folder_only(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    (tmp_path / "sub").mkdir()
    assert find_config(tmp_path) == path
    assert find_config(tmp_path / "sub") is None


@pytest.mark.parametrize("value", [0.01, 0.25, 0.999])
def test_ratio_accepted(value: float) -> None:
    assert check_ratio(value) == value


@pytest.mark.parametrize(
    "value", [0, 1, 0.0, 1.0, 1.5, -0.1, 25, float("nan"), float("inf"), "0.5", None, True]
)
def test_ratio_refused(value: object) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        check_ratio(value)


@pytest.mark.parametrize("value", ["3x32x16", "3,32,16", " 3, 32, 16 ", [3, 32, 16], (3, 32, 16)])
def test_input_shape_accepted(value: object) -> None:
    assert parse_input_shape(value) == (3, 32, 16)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "3",
        "3x32",
        "1x3x32x32",
        "3x0x32",
        "3x-1x32",
        "3x3.5x2",
        "axbxc",
        "3xx32",
        "²x3x3",
        [3, 32],
        [True, 1, 1],
        5,
    ],
)
def test_input_shape_refused(value: object) -> None:
    with pytest.raises(UsageError, match="channels, height and width"):
        parse_input_shape(value)
