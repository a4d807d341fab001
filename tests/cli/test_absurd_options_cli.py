"""Every option of every command with values that nobody means: refused alike, with or without a dry run."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import typer.main

from edgeprune.cli import main
from edgeprune.cli.app import app

LONG = "a" * 3_000
NEVER = (
    "", " ", "\t", "-1", "9" * 400, "1e400", "nan", "-nan", "inf", "-inf", "0x10", "1_0", "None", "../..",
    "\u0663", "\u0660.\u0663", "\uff11", "\u00b2", "\x1b[31m", "\x00", "\u202e1", "\ud800", LONG, "1s1", "%",
)  # fmt: skip
"""No number of any unit."""
VALUES = (
    *NEVER, "0", "-0.0", "1e9", "999999999", "1,2", "0,1", "1e-30", "--", "1e9h", "1 2", "\n1", "\u03bcs",
    "0%", "1e5MB",
)  # fmt: skip
NUMERIC = {
    "--ratio", "--held-out", "--recover-at", "--mean", "--std", "--finetune", "--max-time", "--max-latency",
    "--max-size", "--max-memory", "--max-drop", "--seed", "--threads", "--resize", "--crop", "--max-images",
    "--letterbox", "--pad",
    "--max-evaluations", "--width-quantum", "--batch-size", "--tolerance", "--memory-limit", "--input-shape",
}  # fmt: skip
GOOD = {"first": "a.onnx", "second": "b.onnx", "folder": "nowhere", "model": "nowhere.pt"}
REAL = ["compress", "small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", "-o", "absurd"]
DATA = {"compress", "rank", "quantize", "verify"}


def commands() -> dict[str, Any]:
    """Commands by name, without groups of them."""
    found: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    return {name: command for name, command in found.items() if not hasattr(command, "commands")}


def cases() -> list[tuple[str, str]]:
    return [
        (name, option.opts[0])
        for name, command in commands().items()
        for option in command.params
        if option.param_type_name == "option" and not option.is_flag and not option.count
        # The demo lacks nothing, and any name is good for its folder.
        if (name, option.opts[0]) != ("demo", "-o")
    ]


def arguments(name: str) -> list[str]:
    """A command that only lacks its files, so that it ends once its options are read."""
    given = [name]
    for found in commands()[name].params:
        if found.param_type_name == "argument":
            given.append(GOOD.get(str(found.name), "nowhere.onnx"))
    return [*given, *(["--calibration", "nowhere"] if name in DATA else [])]


def status(command: list[str], capsys: Any) -> tuple[int, str]:
    found = main([*command, "-q"])
    printed, said = capsys.readouterr()
    assert printed == "", said
    assert said.startswith("error: "), said
    assert said.count("\n") == 1 + ("\ntry: " in said)
    assert len(said) < 1_000
    assert not set(said) & set("\x1b\x00\u202e\ud800")
    return found, said


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser is built for the first command only; that takes nine tenths of a refusal."""
    built = typer.main.get_command(app)
    monkeypatch.setattr(typer.main, "get_command", lambda _: built)


@pytest.mark.parametrize(("name", "option"), cases())
def test_absurd_values(
    name: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    chance = random.Random(f"{name} {option}")
    for value in VALUES if option in NUMERIC else [LONG, "", *chance.sample(VALUES, 9)]:
        command = [*arguments(name), option, value]
        found, said = status(command, capsys)
        shown = f"{option} {value!r}: {found} {said}"
        assert found in range(2, 14), shown
        if option in NUMERIC and value in NEVER and (option, value) != ("--mean", "-1"):
            assert found == 2, shown
            assert option.strip("-").replace("-", " ") in said.replace("-", " ").lower(), shown
        # What is lost is not predicted, and nothing is written.
        if name == "compress" and option not in {"--max-drop", "-o"}:
            assert status([*command, "--dry-run"], capsys)[0] == found, shown
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("option", "values"),
    {
        "--std": ("0", "-1", "0,0,0", "1,0,1", "1e-30", "1e30", "nan", "inf", "1,1"),
        "--mean": ("nan", "inf", "1e30", "0.5,0.5", ",", "0.5,", "1,2,3,4,5"),
        "--finetune": ("0", "0s", "999999999", "1000001", "9999999h", "1.5"),
    }.items(),
)  # fmt: skip
def test_what_a_real_run_refuses_a_dry_run_refuses(
    option: str, values: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """On a model and images that are there: images of one channel."""
    monkeypatch.chdir(project)
    run = REAL
    for value in values:
        for more in ([], ["--dry-run"]):
            found, said = status([*run, option, value, *more], capsys)
            assert (found, option in said) == (2, True), (value, more, said)


@pytest.mark.parametrize(
    "more",
    [
        ("--recipe", "nowhere.py:train"),
        ("--recipe", "nets.py:small", "--finetune", "10"),
        ("--batch-size", "5000"),
        ("--finetune", "10", "--max-images", "4"),
    ],
)
def test_choices_that_contradict_each_other_are_refused_alike(
    more: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(project)
    run = [
        "compress",
        "small.pt",
        "--arch",
        "nets.py:small",
        "--calibration",
        "grey.npz",
        "-o",
        "absurd",
        *more,
    ]
    assert status(run, capsys) == status([*run, "--dry-run"], capsys)
