"""Command line over environment over ``edgeprune.toml`` over default, for every option of every command."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from small_project import sentence

from edgeprune.cli import main
from edgeprune.cli.app import app
from edgeprune.cli.configuration import commented_file, reference_page
from edgeprune.cli.process.variables import ONLY_ON_THE_COMMAND_LINE
from edgeprune.options.project_file import COMMAND_TABLES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
VALUES = {
    "--resize": "9", "--crop": "8", "--mean": "0.25", "--std": "0.5", "--channel-order": "bgr",
    "--letterbox": "64x96", "--pad": "7", "--exif": "False", "--ground": "white",
    "--held-out": "0.5", "--max-images": "77", "--ratio": "0.5", "--attention-unit": "heads",
    "--effort": "quick", "--threads": "2", "--precision": "fp16", "--width-quantum": "4",
    "--batch-size": "2", "--seed": "11", "--ranges": "minmax", "--players": "blocks",
    "--max-evaluations": "500", "--recover-at": "0.5", "--tolerance": "0.01", "--prune-normalized":
    "True", "--arch-kwargs": "width=0.5,pretrained=False", "--drop-blocks": "False", "--rounds": "False",
    "--pictures": "False", "--emulate": "True", "--task": "embedding", "--boxes": "xywh-objectness",
    "--ssh-port": "2222", "--compute-device": "auto", "--workers": "2", "--executor": "ray",
}  # fmt: skip


def options(command: str) -> list[Any]:
    group: Any = typer.main.get_command(app)
    params = group.commands[command].params
    hidden = ONLY_ON_THE_COMMAND_LINE
    return [p for p in params if p.param_type_name == "option" and p.name not in hidden]


def shown(capsys: Any, command: str, model: Path, *asked: str) -> dict[str, tuple[str, str]]:
    second = ("other.onnx",) if command == "verify" else ()
    assert main(["config", "show", command, "--json", str(model), *second, *asked]) == 0, (
        capsys.readouterr().err
    )
    found = json.loads(capsys.readouterr().out)
    return {s["option"].lstrip("-").replace("-", "_"): (s["value"], s["source"]) for s in found}


def long(param: Any) -> str:
    return str(max(param.opts, key=len))


def key(param: Any) -> str:
    return long(param).lstrip("-").replace("-", "_")


@pytest.mark.parametrize("command", COMMAND_TABLES)
def test_every_option_is_taken_from_all_three_in_order(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model, file = tmp_path / "m.pt2", tmp_path / "edgeprune.toml"
    values = {param.name: VALUES.get(long(param), "something") for param in options(command)}
    assert {source for _, source in shown(capsys, command, model).values()} == {"default"}

    lines = [
        f"{p.name.replace('_', '-')} = {[values[p.name]] if p.multiple else repr(values[p.name])}"
        for p in options(command)
    ]
    file.write_text("\n".join([f"[{command}]", *lines]))
    found = shown(capsys, command, model)
    for param in options(command):
        value, source = found[key(param)]
        assert source == f"{file} [{command}]", param.name
        assert value == values[param.name] or value == str(tmp_path / values[param.name])

    for param in options(command):
        monkeypatch.setenv(f"EDGEPRUNE_{param.name.upper()}", values[param.name])
    found = shown(capsys, command, model)
    for param in options(command):
        expected = (values[param.name], f"environment (EDGEPRUNE_{param.name.upper()})")
        assert found[key(param)] == expected

    given = [p for p in options(command) if not p.is_flag]
    found = shown(capsys, command, model, *(part for p in given for part in (long(p), values[p.name])))
    assert all(found[key(p)] == (values[p.name], "command line") for p in given)


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("EDGEPRUNE_RATOI", "no command has such an option; did you mean 'EDGEPRUNE_RATIO'?"),
        ("EDGEPRUNE_BUDGTE", "no command has such an option; did you mean 'EDGEPRUNE_BUDGET'?"),
        ("EDGEPRUNE_XYZXYZXYZ", "no command has such an option"),
        ("EDGEPRUNE_TRUST_PICKLE", "only the command line sets that option"),
    ],
)
def test_variables_that_set_nothing_are_named(
    variable: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("EDGEPRUNE_RATIO", "0.3")
    assert main(["targets", "list"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warned) == 1
    assert variable in warned[0]
    assert warned[0].endswith(words)


ALONE = ("trust-pickle", "overwrite", "resume", "dry-run", "json", "quiet", "verbose")


@pytest.mark.parametrize("command", COMMAND_TABLES)
@pytest.mark.parametrize(
    "key", ["trust-pickle", "known-hosts", "overwrite", "resume", "dry-run", "json", "quiet", "verbose"]
)
def test_a_file_decides_nothing_about_trust_or_about_replacing(
    command: str, key: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "edgeprune.toml").write_text(f"[{command}]\n{key} = true\n")
    assert (
        main(["config", "show", command, str(tmp_path / "m.pt2"), "b"][: 5 if command == "verify" else 4])
        == 2
    )
    assert f"[{command}] has the unknown key {key!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[compress]\nefort = 'quick'", "unknown key 'efort'; did you mean 'effort'?"),
        ("[compress]\neffort = 'quik'", "effort is 'quik'"),
        ("[compress]\nseed = -1", "seed is -1, but --seed -1 was given; accepted is"),
        ("[compress]\nheld-out = 'half'", "held-out is 'half', but --held-out half was given"),
        ("compress = 3", "'compress' has to be a [compress] table"),
        ("[compres]\nseed = 1", "unknown key 'compres'; did you mean 'compress'?"),
        ("[compress", "is not valid TOML"),
    ],
)
def test_what_is_not_accepted_in_a_file_is_one_sentence(
    text: str, told: str, tmp_path: Path, edgeprune: Any
) -> None:
    (tmp_path / "edgeprune.toml").write_text(text)
    said = sentence(edgeprune("compress", str(tmp_path / "m.pt2"), "--ratio", "0.5"), 2)
    assert told in said
    assert "edgeprune.toml" in said


def test_a_run_goes_by_the_file(edgeprune: Any, project: Path, tmp_path: Path) -> None:
    for name in ("small.pt", "nets.py", "grey.npz"):
        (tmp_path / name).write_bytes((project / name).read_bytes())
    (tmp_path / "edgeprune.toml").write_text(
        'calibration = "grey.npz"\narch = "nets.py:small"\nthreads = 1\n'
        '[compress]\ncriterion = "l1"\nratio = 0.3\n[rank]\ncriterion = ["l2", "random"]\n'
    )
    model, out = str(tmp_path / "small.pt"), tmp_path / "out"
    done = edgeprune("compress", model, "-o", str(out))
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert (report["ranking"]["criterion"], report["pruning"]["ratio_asked"]) == ("l1", 0.3)
    done = edgeprune("rank", model, "-o", str(tmp_path / "ranking"))
    assert done.returncode == 0, done.stderr
    ranking = json.loads((tmp_path / "ranking" / "ranking.json").read_text())
    assert [c["name"] for c in ranking["criteria"]] == ["l2", "random"]


def test_init_writes_a_file_whose_every_line_may_be_taken_in(tmp_path: Path, capsys: Any) -> None:
    assert main(["init", str(tmp_path)]) == 0
    capsys.readouterr()
    text = (tmp_path / "edgeprune.toml").read_text()
    assert tomllib.loads(text) == {}
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    settings = [line for line in lines if line.startswith("[") or " = " in line]
    found = tomllib.loads("\n".join(settings))
    assert set(found) >= {"preprocessing", *COMMAND_TABLES}
    assert main(["init", str(tmp_path)]) == 7
    assert "is there already, and stays" in capsys.readouterr().err
    assert (tmp_path / "edgeprune.toml").read_text() == text == commented_file()


@pytest.mark.parametrize("asked", [("compres", "m.pt2"), ("pick", "out"), ("compress",)])
def test_config_show_of_something_else_is_refused(asked: tuple[str, ...], edgeprune: Any) -> None:
    done = edgeprune("config", "show", *asked)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def test_the_page_has_every_option(golden: Any) -> None:
    golden(PAGE, reference_page())


@pytest.mark.parametrize(
    ("variable", "value", "command", "told"),
    [
        ("THREADS", "-3", ("profile", "m.onnx"), "--threads -3 was given; accepted is a whole number"),
        ("PLAYERS", "all", ("rank", "m.pt2"), "Invalid value for '--players': 'all' is not one of"),
        ("EXIF", "ja", ("compress", "m.pt2"), "Invalid value for '--exif'"),
        ("RECOVER_AT", "0.5 7", ("rank", "m.pt2"), "--recover-at 7 was given; accepted is a share"),
        ("TIMEOUT", "5", ("profile", "m.onnx"), "--timeout 5 was given; accepted is a time with its unit"),
        ("TARGET", "rpi49", ("profile", "m.onnx"), "unknown target 'rpi49'; did you mean 'rpi4'?"),
        ("INPUT_SHAPE", "3x", ("compare", "m.onnx"), "input shape '3x' is not accepted"),
        ("SEED", "a", ("config", "show", "compress", "m.pt2"), "--seed a was given"),
    ],
)
def test_a_refused_value_of_a_variable_is_not_laid_to_the_option(
    variable: str,
    value: str,
    command: tuple[str, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    name = f"EDGEPRUNE_{variable}"
    monkeypatch.setenv(name, value)
    assert main([*command]) != 0
    assert capsys.readouterr().err.startswith(f"error: environment variable {name}: {told}")


def test_a_variable_is_not_blamed_for_what_the_command_line_gives(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("EDGEPRUNE_THREADS", "3")
    assert main(["profile", "m.onnx", "--threads", "-4"]) == 2
    assert capsys.readouterr().err.startswith("error: --threads -4 was given")
    assert main(["profile", "m.onnx"]) == 10
    assert capsys.readouterr().err.startswith("error: no ONNX file")
