"""The two tiers of tests: what ``make test`` leaves out is shown by a faster test of the same file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from example_counts import ALL, FEW, examples
from hypothesis import settings

CHECKOUT = Path(__file__).resolve().parents[3]
TESTS = CHECKOUT / "tests"
WIDE_ALONE: dict[str, str] = {}
"""Files of nothing but wide tests, with the reason."""


def is_mark(node: ast.expr) -> bool:
    """``pytest.mark.wide`` itself, not a choice between it and nothing."""
    return ast.unparse(node) == "pytest.mark.wide"


def every_case_is_wide(decorator: ast.expr) -> bool:
    """Whether a ``parametrize`` has no case without the mark, as far as its list is written out."""
    if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith("mark.parametrize")):
        return False
    cases = decorator.args[1]
    if not isinstance(cases, ast.List | ast.Tuple):
        cases = ast.List(elts=[ast.Starred(value=cases)])
    return all(is_wide_case(case) for case in cases.elts)


def is_wide_case(case: ast.expr) -> bool:
    """Whether a case, or each of a comprehension of cases, has the mark whatever it is of."""
    if isinstance(case, ast.Starred):
        case = case.value
    if isinstance(case, ast.GeneratorExp | ast.ListComp):
        case = case.elt
    return isinstance(case, ast.Call) and any(k.arg == "marks" and is_mark(k.value) for k in case.keywords)


def is_wide(function: ast.FunctionDef) -> bool:
    return any(is_mark(d) or every_case_is_wide(d) for d in function.decorator_list)


def named_tests(source: str) -> dict[str, bool]:
    """Names of the tests of a file, and whether all of each is wide."""
    found = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    return {function.name: is_wide(function) for function in found if function.name.startswith("test_")}


def with_wide_tests() -> list[Path]:
    found = sorted(TESTS.rglob("test_*.py"))
    return [p for p in found if p != Path(__file__) and "pytest.mark.wide" in p.read_text(encoding="utf-8")]


def test_every_file_with_wide_tests_has_another_one() -> None:
    files = with_wide_tests()
    assert len(files) > 20
    alone = {
        str(path.relative_to(TESTS))
        for path in files
        if all(named_tests(path.read_text(encoding="utf-8")).values())
    }
    assert alone == set(WIDE_ALONE), "a file of wide tests alone shows nothing in make test"


@pytest.mark.parametrize(
    ("decorators", "wide"),
    [
        ("@pytest.mark.wide", True),
        ("@pytest.mark.parametrize('x', [1, 2])\n@pytest.mark.wide", True),
        ("@pytest.mark.parametrize('x', [1, pytest.param(2, marks=pytest.mark.wide)])", False),
        ("@pytest.mark.parametrize('x', [pytest.param(2, marks=pytest.mark.wide)])", True),
        ("@pytest.mark.parametrize('x', [pytest.param(n, marks=pytest.mark.wide) for n in A])", True),
        ("@pytest.mark.parametrize('x', [*(pytest.param(n, marks=pytest.mark.wide) for n in A)])", True),
        ("@pytest.mark.parametrize('x', [n if n else pytest.param(n, marks=pytest.mark.wide)])", False),
        ("@pytest.mark.parametrize('x', [pytest.param(n, marks=pytest.mark.wide if n else ()) for n in A])",
         False),
        ("@pytest.mark.parametrize('x', NAMES)", False),
        ("@pytest.mark.realdata", False),
    ],
)  # fmt: skip
def test_a_test_of_wide_cases_alone_is_told(decorators: str, wide: bool) -> None:
    assert named_tests(f"{decorators}\ndef test_it(x): pass\n") == {"test_it": wide}


def test_the_commands_run_the_tiers_that_they_promise() -> None:
    rules = (CHECKOUT / "Makefile").read_text(encoding="utf-8").split("\n\n")
    recipes = {name: rule for rule in rules for name in re.findall(r"^(test(?:-all)?):", rule)}
    assert '$(PYTEST) -m "not wide"\n' in recipes["test"] + "\n"
    assert recipes["test-all"].rstrip().endswith("$(PYTEST)")
    nightly = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "nightly.yml").read_text())
    assert nightly[True]["schedule"]  # "on", which YAML takes for a truth value
    assert nightly["jobs"]["test-all"]["steps"][-1]["run"] == "make test-all"
    assert (CHECKOUT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


def test_few_examples_are_a_quarter_and_never_none() -> None:
    before = settings.get_current_profile_name()
    try:
        settings.load_profile(FEW)
        assert [examples(count) for count in (1, 10, 40)] == [1, 3, 10]
        settings.load_profile(ALL)
        assert [examples(count) for count in (1, 10, 40)] == [1, 10, 40]
    finally:
        settings.load_profile(before)


def test_leaving_out_wide_tests_is_what_makes_examples_few(pytestconfig: pytest.Config) -> None:
    few = pytestconfig.option.markexpr == "not wide"
    assert settings.get_current_profile_name() == (FEW if few else ALL)
