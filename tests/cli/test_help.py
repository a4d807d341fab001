"""Help, version, start-up time's cause, and the entry point's way with every outcome; on the real process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from edgeprune import errors
from edgeprune.cli import entry
from edgeprune.cli.app import app
from edgeprune.cli.process.session import Session
from edgeprune.cli.shared import options as opt
from edgeprune.importance.registry import BUILT_IN_NAMES


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeprune", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )


def every_command() -> dict[str, Any]:
    """Every command, groups included, by its path."""
    found = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        found[" ".join(path)] = command
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*path, name))

    walk(typer.main.get_command(app), ())
    return found


COMMANDS = every_command()


@pytest.mark.parametrize("path", COMMANDS)
def test_flags_are_shown_without_a_type(path: str) -> None:
    shown = CliRunner().invoke(app, [*path.split(), "--help"]).output
    assert "--help" in shown
    assert "<bool>" not in shown


def in_brackets(command: Any) -> set[str]:
    """Every text in brackets of a command's help, its parameters' and its own commands'."""
    told = (command, *command.params, *getattr(command, "commands", {}).values())
    texts = [getattr(one, name, None) or "" for one in told for name in ("help", "epilog", "metavar")]
    return set(re.findall(r"\[[^\[\]]+\]", " ".join(texts)))


@pytest.mark.parametrize("path", COMMANDS)
def test_no_text_in_brackets_is_taken_for_markup(path: str) -> None:
    for _ in range(2):
        shown = CliRunner().invoke(app, [*path.split(), "--help"], env={"COLUMNS": "400"}).output
        assert {text for text in in_brackets(COMMANDS[path]) if text not in shown} == set()


def test_help_of_every_kind_keeps_its_brackets() -> None:
    made = typer.Typer(cls=opt.Group, help="A [group].", epilog="An [epilog].")

    @made.command(cls=opt.Command, epilog="Its [end].")
    def one(b: Annotated[str, typer.Argument(metavar="[B]", help="pip install 'x[extra]'.")] = "") -> None:
        """Do [this]."""

    made.callback()(lambda: None)
    shown = CliRunner().invoke(made, ["--help"]).output
    assert [text for text in ("[group]", "[epilog]", "[this]") if text not in shown] == []
    shown = CliRunner().invoke(made, ["one", "--help"]).output
    assert [text for text in ("[this]", "[B]", "'x[extra]'", "[end]") if text not in shown] == []


def test_the_commands_are_those_documented() -> None:
    expected = {
        "",
        "compress",
        "pick",
        "schema",
        "rank",
        "profile",
        "quantize",
        "inspect",
        "verify",
        "compare",
        "check",
        "demo",
        "init",
        "config",
        "config show",
        "sweep",
        "cache",
        "cache list",
        "cache prune",
        "cache verify",
        "targets",
        "bundle",
        "report",
        "targets list",
        "targets show",
        "targets validate",
        "targets diff",
        "targets add",
        "targets calibrate",
    }
    assert set(COMMANDS) == expected


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_has_help(path: str) -> None:
    command = COMMANDS[path]
    assert command.help, f"{path!r} has no help"
    for parameter in command.params:
        assert parameter.help, f"{path!r} {parameter.name} has no help"


@pytest.mark.parametrize("path", [p for p, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_verbosity_is_accepted_after_every_command(path: str) -> None:
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert {"-v", "-q", "--json"} <= options


@pytest.mark.parametrize("path", COMMANDS)
def test_help_is_printed_on_stdout(path: str) -> None:
    done = run(*path.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: edgeprune" in done.stdout


def test_every_built_in_criterion_is_named() -> None:
    (help_text,) = (p.help for p in every_command()["rank"].params if p.name == "criterion")
    listed = help_text.partition("Default: ")[2].partition(", those of plug-ins")[0]
    assert tuple(listed.replace(". Also ", ", ").split(", ")) == BUILT_IN_NAMES


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"edgeprune {metadata.version('edgeprune')}\n",
        "",
    )


def test_without_arguments_the_help_is_shown() -> None:
    done = run()
    assert done.returncode == 2
    assert "Usage: edgeprune" in done.stdout + done.stderr
    assert "error:" not in done.stderr


@pytest.mark.parametrize("asked", [("--help",), ("rank", "--help")])
def test_help_does_not_wait_for_the_heavy_libraries(asked: tuple[str, ...]) -> None:
    code = (
        "import sys, edgeprune.cli\n"
        f"edgeprune.cli.main({[*asked]})\n"
        "heavy = {'torch', 'torchvision', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_shell_completion_offers_commands_and_targets() -> None:
    words = {"_EDGEPRUNE_COMPLETE": "complete_bash", "COMP_WORDS": "edgeprune comp", "COMP_CWORD": "1"}
    assert "compress" in run(env=words).stdout
    words |= {"COMP_WORDS": "edgeprune targets show rp", "COMP_CWORD": "3"}
    assert "rpi4" in run(env=words).stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["comprss"], "error: No such command 'comprss'. Did you mean 'compress'"),
        (["compress", "x", "--ratoi", "1"], "error: No such option: --ratoi"),
        (["compress"], "error: Missing argument 'MODEL'"),
        (["compress", "x", "--ratio", "a"], "error: ratio 'a' is not accepted: it is the share of the MACs"),
        (
            ["compress", "x", "--ratio", "1.5"],
            "error: ratio 1.5 is not accepted: it is the share of the MACs",
        ),
        (["compress", "x", "--seed", "-1"], "error: --seed "),
        (["compress", "x", "--channel-order", "gbr"], "error: Invalid value for '--channel-order'"),
        (["inspect", "x", "--input-shape", "32"], "error: input shape '32' is not accepted: give channels"),
        (["-q", "targets", "list", "-v"], "error: -q and -v contradict each other"),
    ],
)
def test_a_usage_error_is_one_sentence_and_status_2(arguments: list[str], sentence: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(sentence)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def fail_with(error: BaseException) -> Any:
    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize("verbosity", [0, 1, 2])
@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (errors.OutputError("a [bold]b[/bold]\n c"), 7, "error: a [bold]b[/bold] c\n"),
        (KeyboardInterrupt(), 130, "interrupted: nothing was written\n"),
        (
            ZeroDivisionError("by [zero]"),
            70,
            "error: unexpected ZeroDivisionError: by [zero]; this is a fault in edgeprune, please run the "
            "command again with -vv for the traceback and report it\n",
        ),
        (MemoryError(), 1, "error: the memory of this machine does not suffice (MemoryError); "),
    ],
)
def test_every_outcome_has_its_status_and_sentence(
    error: BaseException, status: int, sentence: str, verbosity: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.guarded(fail_with(error), Session(verbosity=verbosity)) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("Traceback" in shown.err) == (verbosity == 2)
    last = shown.err if verbosity < 2 else shown.err.splitlines(keepends=True)[-1]
    assert last.startswith(sentence)
    assert last.count("\n") == 1


def test_a_reader_that_leaves_is_no_fault() -> None:
    script = f"{sys.executable} -m edgeprune targets list --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() in {"0", "141"}
    assert done.stderr == ""


def test_the_command_line_can_be_typed_again() -> None:
    assert (
        Session(arguments=("compress", "a b.pt", "-o", "x")).command_line
        == "edgeprune compress 'a b.pt' -o x"
    )


def test_schemas_are_printed_and_written_but_replace_nothing(tmp_path: Any) -> None:
    printed = run("schema", "report")
    assert json.loads(printed.stdout)["$id"].startswith("urn:edgeprune:report:")
    path = tmp_path / "report.schema.json"
    assert run("schema", "report", "-o", str(path)).returncode == 0
    assert path.read_text(encoding="utf-8") == printed.stdout
    again = run("schema", "manifest", "-o", str(path))
    assert (again.returncode, again.stderr.count("\n")) == (7, 1)
    assert path.read_text(encoding="utf-8") == printed.stdout
    assert run("schema", "manifest", "-o", str(path), "--overwrite").returncode == 0
    assert run("schema", "reports").returncode == 2
