"""A field of a run's options that says how it is given is an option of the command, without more."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args, get_type_hints

import pytest
import typer
from torch import nn
from typer.main import get_command
from typer.testing import CliRunner

from edgeprune import limits
from edgeprune.cli.app import app
from edgeprune.cli.process.session import Session
from edgeprune.cli.shared import arguments
from edgeprune.cli.shared.arguments import SpokenArguments, command, joined
from edgeprune.errors import UsageError
from edgeprune.options.cli_option import CliOption, Panel
from edgeprune.options.runs import (
    CompressOptions,
    InspectOptions,
    ProfileOptions,
    QuantizeOptions,
    RankOptions,
    VerifyOptions,
)

RUNS = {
    "compress": CompressOptions,
    "rank": RankOptions,
    "quantize": QuantizeOptions,
    "verify": VerifyOptions,
    "inspect": InspectOptions,
    "profile": ProfileOptions,
}


def declared(run: type[Any]) -> dict[str, CliOption]:
    hints = get_type_hints(run, include_extras=True, localns={"nn": nn})
    told = {name: [t for t in get_args(hint) if isinstance(t, CliOption)] for name, hint in hints.items()}
    return {name: options[0] for name, options in told.items() if options}


@pytest.mark.parametrize("name", RUNS)
def test_an_option_is_the_same_in_python_and_on_the_command_line(name: str) -> None:
    params = {param.name: param for param in get_command(app).commands[name].params}  # type: ignore[attr-defined]
    defaults = {field.name: field.default for field in fields(RUNS[name])}
    assert declared(RUNS[name])
    for option, told in declared(RUNS[name]).items():
        param = params[option]
        assert param.help == told.help
        assert param.rich_help_panel == told.panel.value
        spellings = [o for o in (*param.opts, *param.secondary_opts) if o != told.short]
        assert "/".join(spellings) == told.spelling(option)
        assert told.short is None or told.short in param.opts
        assert param.default == defaults[option]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Options of a command that the tests make up."""

    plain: Annotated[int | None, CliOption(help="A number.", panel=Panel.GOAL, limit=limits.THREADS)] = None
    either: Annotated[bool, CliOption(flags="--so/--not-so", help="Or not.", panel=Panel.RUN)] = True
    as_json: Annotated[bool, CliOption(help="The command has its own.", panel=Panel.RUN)] = False
    hidden: str = "python alone"


@pytest.mark.parametrize(("given", "expected"), [
    ((), Run()),
    (("--plain", "3"), Run(plain=3)),
    (("--not-so", "--plain", "1"), Run(plain=1, either=False)),
    (("--json",), Run(as_json=True)),
])  # fmt: skip
def test_a_declared_field_needs_nothing_else(
    given: tuple[str, ...], expected: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A command sets up the logging of its process, which here is that of all tests.
    monkeypatch.setattr(arguments, "begin", lambda *_: Session())
    seen: list[Run] = []

    @command(SpokenArguments, Run)
    def made_up(session: Session, asked: SpokenArguments) -> None:
        """Made up."""
        seen.append(joined(Run, asked, hidden="python alone"))

    one = typer.Typer()
    one.command()(made_up)
    ended = CliRunner().invoke(one, list(given))
    assert ended.exit_code == 0, ended.output
    assert seen == [expected]
    refused = CliRunner().invoke(one, ["--plain", "-1"])
    assert isinstance(refused.exception, UsageError)
    assert "--plain" in str(refused.exception)
    assert "--hidden" not in CliRunner().invoke(one, ["--help"]).output
