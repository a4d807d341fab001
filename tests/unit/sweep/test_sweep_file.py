"""What a sweep file may say, and the sentence about everything else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_cells import project

from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.choices import Effort, Finetune
from edgeprune.artifacts.quantization import Precision
from edgeprune.commands.sweep.cells import cells_of, in_turn
from edgeprune.errors import EdgepruneError, TargetError, UsageError
from edgeprune.options.sweep.sweep_file import EXAMPLE, read_sweep

MODEL = '[[models]]\nmodel = "net.pt"\ncalibration = "images.npz"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return project(tmp_path).parent


def written(folder: Path, text: str) -> Path:
    path = folder / "s.toml"
    path.write_text(text)
    return path


def test_a_whole_file_is_read(folder: Path) -> None:
    plan = read_sweep(
        written(
            folder,
            'targets = ["rpi4", "n100"]\nprecisions = ["fp32", "int8"]\n' + MODEL + 'arch = "net.py:made"\n'
            'arch-kwargs = {width = 0.5}\ninput-shape = "1x8x8"\n[models.preprocessing]\ncard = "digits"\n'
            '[[budgets]]\nname = "fast"\nmax-latency = "50%"\nmax-size = "2kB"\nmax-drop = "1"\n'
            '[options]\neffort = "quick"\nmax-images = 100\nfinetune = "2min"\nheld-out = 0.5\n',
        )
    )
    (model,) = plan.models
    assert (model.name, model.model, model.arch) == (
        "net",
        str(folder / "net.pt"),
        f"{folder / 'net.py'}:made",
    )
    assert (model.arch_kwargs, model.input_shape) == ({"width": 0.5}, (1, 8, 8))
    assert model.preprocessing is not None
    assert plan.budgets[0].budget == Budget(max_latency_share=0.5, max_size_bytes=2000, max_drop_points=1.0)
    assert plan.precisions == (Precision.FP32, Precision.INT8)
    assert (plan.settings.effort, plan.settings.finetune) == (Effort.QUICK, Finetune(time_limit_s=120))
    assert plan.count == 4
    cells = cells_of(plan, "a command")
    assert [cell.name for cell in cells] == [
        "net_rpi4_fast_fp32", "net_rpi4_fast_int8", "net_n100_fast_fp32", "net_n100_fast_int8",
    ]  # fmt: skip
    assert {cell.options.threads for cell in cells} == {1}
    assert len({cell.key for cell in cells}) == 4


def test_what_is_left_out_has_its_default(folder: Path) -> None:
    plan = read_sweep(written(folder, MODEL))
    (cell,) = cells_of(plan, "")
    assert (cell.name, cell.options.ratio, cell.options.budget) == ("net_host_default_fp32", None, Budget())
    assert cell.measures


def test_the_example_is_one(folder: Path) -> None:
    for name in ("digits_net.safetensors", "digits.npz", "model.py"):
        (folder / name).touch()
    assert read_sweep(written(folder, EXAMPLE)).count == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "lacks the key 'models'; add a [[models]] table"),
        ("targets = [", "is not valid TOML"),
        ("target = ['rpi4']\n" + MODEL, "has the unknown key 'target'; did you mean 'targets'?"),
        (
            "targets = 'rpi4'\n" + MODEL,
            "has 'targets' = 'rpi4', but a list of at least one target is expected",
        ),
        ("targets = []\n" + MODEL, "has 'targets' = []"),
        ("targets = ['rpi4', 'rpi4']\n" + MODEL, "has 'rpi4' twice in 'targets'"),
        ("precisions = ['int4']\n" + MODEL, "but 'fp32' or 'fp16' or 'int8' or 'auto' is expected"),
        ("models = 3", "has 'models' that are no tables; write [[models]], once for each"),
        (MODEL + MODEL, "has 'net' twice in 'models'; accepted is each once"),
        ("[[models]]\nmodel = 'net.pt'", "lacks the key 'models[0].calibration'; add it"),
        (
            "[[models]]\nmodel = 'no.pt'\ncalibration = 'images.npz'",
            "'models[0].model' = 'no.pt', and there is no",
        ),
        (
            "[[models]]\nmodel = 'net.pt'\ncalibration = 'no'",
            "'models[0].calibration' = 'no', and there is no",
        ),
        (MODEL + "name = 'a/b'", "has 'models[0].name' = 'a/b', but a name of at most 48 letters"),
        (MODEL + "wieghts = 'x'", "unknown key 'models[0].wieghts'; did you mean 'weights'?"),
        (MODEL + "input-shape = '3'", "has 'models[0].input-shape' = '3', but channels, height and width"),
        (MODEL + "preprocessing = 3", "has models[0].preprocessing that is no table"),
        (MODEL + "[models.preprocessing]\ncrop = 'x'", "has 'models[0].preprocessing.crop' = 'x'"),
        (
            MODEL + "[models.preprocessing]\ncard = 'no'",
            "has 'models[0].preprocessing' that is not accepted: there is no card 'no'",
        ),
        (MODEL + "[[budgets]]\nratio = 0.5", "lacks the key 'budgets[0].name'; add it"),
        (MODEL + "[[budgets]]\nname = 'a'\nratio = 1.5", "has 'budgets[0].ratio' = 1.5, but the share"),
        (
            MODEL + "[[budgets]]\nname = 'a'\nmax-latency = 40",
            "'budgets[0].max-latency' = 40, but a time such",
        ),
        (
            MODEL + "[[budgets]]\nname = 'a'\nmax-size = '3'",
            "has 'budgets[0].max-size' = '3', but a size such",
        ),
        (
            MODEL + "[[budgets]]\nname = 'a'\nmax-drop = 'x'",
            "has 'budgets[0].max-drop' = 'x', but percentage",
        ),
        (MODEL + "[options]\nseed = -1", "has 'options.seed' = -1, but a whole number from 0"),
        (MODEL + "[options]\nheld-out = 2", "has 'options.held-out' = 2"),
        (
            MODEL + "[options]\neffort = 'high'",
            "'options.effort' = 'high', but 'quick' or 'normal' or 'thorough'",
        ),
        (MODEL + "[options]\nfinetune = 500", "has 'options.finetune' = 500, but steps such as"),
        (MODEL + "[options]\ntrust-pickle = true", "has the unknown key 'options.trust-pickle'"),
        (MODEL + "[options]\nseed = 1979-05-27", "has 'options.seed' = "),
        ("options = 3\n" + MODEL, "has 'options' that is no table; write [options]"),
        (
            f"targets = {[f't{n}' for n in range(3000)]}\n"
            f"precisions = ['fp32', 'fp16', 'int8', 'auto']\n{MODEL}",
            "asks for 12,000 cells; accepted are at most 10,000",
        ),
    ],
)
def test_what_is_not_accepted_is_one_sentence_with_the_key(text: str, told: str, folder: Path) -> None:
    with pytest.raises(UsageError) as raised:
        read_sweep(written(folder, text))
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


KEYS = st.sampled_from(["targets", "precisions", "models", "budgets", "options", "name", "ratio", "model"])
VALUES = st.recursive(
    st.one_of(
        st.integers(-2, 2), st.booleans(), st.floats(-2, 2), st.sampled_from(["rpi4", "net.pt", "fp32", ""])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


def as_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


@given(table=st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_tables_give_a_plan_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, object]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    project(folder)
    text = "\n".join(f"{key} = {as_toml(value)}" for key, value in table.items())
    tomllib.loads(text)
    told = ""
    try:
        cells_of(read_sweep(written(folder, text)), "")
    except TargetError:
        return
    except EdgepruneError as error:
        told = str(error)
    assert "s.toml" in told or not told


def test_an_unknown_target_is_told(folder: Path) -> None:
    with pytest.raises(TargetError, match="rpi44"):
        cells_of(read_sweep(written(folder, "targets = ['rpi44']\n" + MODEL)), "")


def test_32_bits_in_a_sweep_are_those_of_compress_without_a_precision(folder: Path) -> None:
    text = "precisions = ['fp32', 'int8']\n" + MODEL
    cells = cells_of(read_sweep(written(folder, text)), "edgeprune sweep")
    assert [(c.precision, c.options.precision) for c in cells] == [
        (Precision.FP32, None),
        (Precision.INT8, Precision.INT8),
    ]


def test_cells_of_different_models_take_turns(folder: Path) -> None:
    cells = cells_of(read_sweep(folder / "sweep.toml"), "")
    assert [cell.model for cell in in_turn(cells)] == ["net", "other"] * 4
    assert sorted(cell.name for cell in in_turn(cells)) == sorted(cell.name for cell in cells)


def keys(path: Path) -> list[str]:
    return [cell.key for cell in cells_of(read_sweep(path), "")]


def test_the_key_of_a_cell_follows_every_input_and_option(folder: Path) -> None:
    path = folder / "sweep.toml"
    before, text = keys(path), path.read_text()
    assert before == keys(path)
    for name, changed in (("net.pt", 4), ("net.py", 4), ("images.npz", 8)):
        was = (folder / name).read_text()
        (folder / name).write_text("changed")
        assert len(set(keys(path)) - set(before)) == changed
        (folder / name).write_text(was)
    for one, other, changed in (("0.6", "0.7", 4), ('"n100"', '"rpi5"', 4), ('"more"', '"less"', 0)):
        path.write_text(text.replace(one, other))
        assert len(set(keys(path)) - set(before)) == changed
    for line in ("seed = 1", "threads = 2", 'effort = "quick"', "max-images = 9", "rounds = false"):
        path.write_text(f"{text}[options]\n{line}\n")
        assert len(set(keys(path)) - set(before)) == 8


DEVICE = '[[devices]]\nname = "pi"\nssh = "pi@10.0.0.7:2200"\n'


def test_devices_are_read(folder: Path) -> None:
    (folder / "key").write_text("")
    (folder / "board.toml").write_text("")
    text = 'targets = ["rpi4", "board.toml"]\n' + MODEL + DEVICE
    text += 'identity = "key"\ntargets = ["board.toml"]\n[[devices]]\nname = "phone"\nadb = "R5CT"\n'
    first, second = read_sweep(written(folder, text)).devices
    assert (first.name, str(first.options.destination)) == ("pi", "pi@10.0.0.7:2200")
    assert (first.options.identity, first.targets) == (str(folder / "key"), (str(folder / "board.toml"),))
    assert (second.options.name, second.targets) == ("adb:R5CT", None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[devices]\n", "'devices' that are no tables; write [[devices]]"),
        ('[[devices]]\nssh = "pi@pi"\n', "devices[0].name"),
        ('[[devices]]\nname = "a b"\nssh = "pi@pi"\n', "devices[0].name"),
        ('[[devices]]\nname = "a"\n', "'devices[0]' that is not accepted: neither --ssh nor --adb"),
        (DEVICE + 'adb = "R5CT"\n', "both --ssh and --adb"),
        (DEVICE + 'identity = "none"\n', "'devices[0]' that is not accepted: --identity"),
        (DEVICE + "ssh-port = 22\n", "name two ports"),
        (DEVICE + 'sssh = "pi"\n', "devices[0].sssh"),
        (DEVICE + 'targets = ["jetson"]\n', "'jetson' in 'devices[0].targets'; accepted are targets of the"),
        (DEVICE + "targets = []\n", "devices[0].targets"),
        (DEVICE + DEVICE, "'pi' twice in 'devices'"),
    ],
)
def test_a_device_that_is_not_accepted_is_named(folder: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        read_sweep(written(folder, 'targets = ["rpi4"]\n' + MODEL + text))
