"""Preprocessing cards: the shipped ones, those beside data, and one sentence for every bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.artifacts.calibration import ChannelOrder, Preprocessing
from edgeprune.errors import CalibrationError, UsageError
from edgeprune.limits import DEVIATIONS, MEANS, ChannelNumbers
from edgeprune.options.cards import (
    PreprocessingOptions,
    find_card,
    list_cards,
    load_card,
    merge_preprocessing,
    parse_channel_order,
    parse_floats,
    read_card,
    resolve_preprocessing,
)
from edgeprune.system.compat import import_torchvision


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_card_is_whole() -> None:
    cards = list_cards()
    assert [card.name for card in cards] == ["cifar10", "digits", "imagenet", "mnist"]
    for card in cards:
        assert card.name == card.path.stem
        assert card.description
        assert card.source, "the origin of a card's figures has to be said"
        mean, std = card.preprocessing.mean, card.preprocessing.std
        assert mean is not None
        assert std is not None
        assert len(mean) == len(std)
        assert all(0 < value < 1 for value in (*mean, *std))


def test_the_imagenet_card_is_what_torchvision_classifiers_expect() -> None:
    import_torchvision()
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(crop_size=224)
    card = load_card("imagenet")
    assert [card.resize] == preset.resize_size
    assert [card.crop] == preset.crop_size
    assert (list(card.mean or ()), list(card.std or ())) == (preset.mean, preset.std)


def test_a_card_has_its_values(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.toml",
        'resize = 40\ncrop = 32\nmean = 0.5\nstd = [0.1, 0.2, 1]\nchannel_order = "bgr"\nlicence = "CC0"\n',
    )
    card = read_card(path)
    assert (card.name, card.licence, card.source) == ("mine", "CC0", "")
    assert card.preprocessing == Preprocessing(
        resize=40, crop=32, mean=(0.5,), std=(0.1, 0.2, 1.0), channel_order=ChannelOrder.BGR
    )
    assert load_card(path) == load_card(str(path)) == card.preprocessing
    assert read_card(write(tmp_path / "empty.toml", "")).preprocessing == Preprocessing()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean = [", "is not valid TOML"),
        ("\x00", "is not valid TOML"),
        ("meen = 1", "unknown key 'meen'; did you mean 'mean'"),
        ("zzz = 1", "unknown key 'zzz'; accepted: name"),
        ("resize = 0", "'resize' = 0, but a whole number from 1 to 8192 of pixels"),
        ("crop = 2.5", "'crop' = 2.5"),
        ("crop = true", "'crop' = True"),
        ('mean = "0.5"', "'mean' = '0.5', but a list of finite numbers"),
        ("mean = []", "'mean' ="),
        ("std = [1, nan]", "'std' ="),
        ("std = [true]", "'std' ="),
        ('channel_order = "grb"', "'channel_order' = 'grb', but 'rgb' or 'bgr'"),
        ("name = 3", "'name' = 3, but a text"),
    ],
)
def test_bad_cards(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "bad.toml", text)
    with pytest.raises(CalibrationError, match=message) as caught:
        read_card(path)
    assert "bad.toml" in str(caught.value)


def test_a_card_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CalibrationError, match="is not valid TOML"):
        read_card(tmp_path / "bytes.toml")
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_card(tmp_path / "nothing.toml")
    with pytest.raises(UsageError, match=r"does not exist; give a file or a shipped card \(cifar10"):
        load_card(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("name", "hint"), [("imagnet", "did you mean 'imagenet'"), ("zzz", "give a shipped card")]
)
def test_an_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        load_card(name)


@pytest.mark.parametrize("name", ["../calibration/imagenet", "", "."])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(UsageError, match="there is no card"):
        load_card(name)


def test_the_card_beside_data(tmp_path: Path) -> None:
    folder = tmp_path / "images.v2"
    folder.mkdir()
    assert find_card(folder) is None
    inside = write(folder / "card.toml", "mean = 0.1\n")
    assert find_card(folder) == inside
    beside = write(tmp_path / "data.toml", "mean = 0.2\n")
    assert find_card(tmp_path / "data.npz") is None, "the data do not exist"
    write(tmp_path / "data.npz", "")
    assert find_card(tmp_path / "data.npz") == beside
    assert find_card("data:function") is None
    assert find_card("package.data:function") is None


def test_options_lie_over_the_named_card_over_the_card_beside(tmp_path: Path) -> None:
    data = write(tmp_path / "data.npz", "")
    assert resolve_preprocessing(data, PreprocessingOptions()) is None
    write(tmp_path / "data.toml", "mean = 0.2\nstd = 0.3\n")
    assert resolve_preprocessing(data, PreprocessingOptions()) == Preprocessing(mean=(0.2,), std=(0.3,))
    assert resolve_preprocessing(data, PreprocessingOptions(mean=(0.5,))) == Preprocessing(
        mean=(0.5,), std=(0.3,)
    )
    assert resolve_preprocessing(data, PreprocessingOptions(card="mnist", crop=20)) == Preprocessing(
        crop=20, mean=(0.1307,), std=(0.3081,)
    )
    assert resolve_preprocessing("a.b:c", PreprocessingOptions(resize=9)) == Preprocessing(resize=9)
    with pytest.raises(UsageError, match="there is no card"):
        resolve_preprocessing(data, PreprocessingOptions(card="zzz"))


def test_merging_replaces_only_what_is_given() -> None:
    card = Preprocessing(resize=9, mean=(0.5,), channel_order=ChannelOrder.BGR)
    assert merge_preprocessing(card, PreprocessingOptions()) == card
    merged = merge_preprocessing(card, PreprocessingOptions(crop=8, channel_order=ChannelOrder.RGB))
    assert merged == Preprocessing(resize=9, crop=8, mean=(0.5,))
    assert merge_preprocessing(None, PreprocessingOptions(std=(2,))) == Preprocessing(std=(2,))


def test_numbers_of_an_option() -> None:
    assert parse_floats("0.5", option="--mean", numbers=MEANS) == (0.5,)
    assert parse_floats("0.485, 0.456,-1e-1", option="--mean", numbers=MEANS) == (0.485, 0.456, -0.1)
    assert parse_floats("127/255,0.5", option="--mean", numbers=MEANS) == (127 / 255, 0.5)
    for text in ("", "a", "1,,2", "nan", "1,inf", "1;2", "1/0", "/255", "1/", "1/2/3", "1/nan", "0x7f/255"):
        with pytest.raises(UsageError, match=r"--mean .* separated by commas"):
            parse_floats(text, option="--mean", numbers=MEANS)


@given(
    st.sampled_from([("--mean", MEANS), ("--std", DEVIATIONS)]),
    st.lists(st.floats(9.0, 255.0), min_size=1, max_size=3),
)
def test_figures_of_pixels_up_to_255_are_refused_and_their_fractions_are_not(
    option: tuple[str, ChannelNumbers], values: list[float]
) -> None:
    name, numbers = option
    with pytest.raises(UsageError, match=r"of pixels scaled to 0\.\.1, so divide .* as in 127/255"):
        parse_floats(",".join(map(repr, values)), option=name, numbers=numbers)
    fractions = ",".join(f"{value!r}/255" for value in values)
    assert parse_floats(fractions, option=name, numbers=numbers) == tuple(v / 255 for v in values)


def test_channel_order_of_an_option() -> None:
    assert parse_channel_order("BGR", option="--channel-order") is ChannelOrder.BGR
    with pytest.raises(UsageError, match="'grb' is not accepted; give rgb or bgr"):
        parse_channel_order("grb", option="--channel-order")
