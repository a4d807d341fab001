"""Criteria by name: ours, plug-ins by entry point, the documented example, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from criteria_cases import BASELINES, context_of, score, three_filters

from edgeprune.artifacts.choices import DEFAULT_CRITERION
from edgeprune.errors import UsageError
from edgeprune.importance import registry
from edgeprune.importance.registry import criterion, criterion_names

PAGE = Path(__file__).resolve().parents[3] / "docs" / "criteria.md"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No plug-in of a test outlives it."""
    registry.plug_ins.cache_clear()
    yield
    registry.plug_ins.cache_clear()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write modules and name their classes as entry points."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(entries: list[tuple[str, str]], **modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        found = [metadata.EntryPoint(name=n, value=v, group=registry.ENTRY_POINT_GROUP) for n, v in entries]

        def entry_points(**wanted: str) -> Any:
            return found if wanted == {"group": "edgeprune.criteria"} else everything(**wanted)

        everything = metadata.entry_points  # libraries that are first imported within a test ask, too
        monkeypatch.setattr(registry.metadata, "entry_points", entry_points)

    return put


MINIMAL = """
class Mine:
    name = "mine"
    summary = "nothing"
    def passes(self, context): return 0
    def score(self, context, *, rng, advance): raise NotImplementedError
"""


def test_ours_are_known_by_their_names():
    assert set(criterion_names()) == {"hybrid", "layer-shapley", *BASELINES}
    assert DEFAULT_CRITERION == criterion_names()[0] == "hybrid"
    for name in criterion_names():
        found = criterion(name)
        assert found.name == name
        assert found.summary


@pytest.mark.parametrize(
    ("given", "meant"),
    [("L1", "l1"), ("tayler", "taylor"), ("bn_scale", "bn-scale"), ("leave-one", "leave-one-out")],
)
def test_a_near_miss_is_guessed(given, meant):
    with pytest.raises(
        UsageError, match=rf"no criterion '{given}'; did you mean '{meant}'\?.*hybrid, layer-shapley, random"
    ):
        criterion(given)


def test_a_far_miss_lists_what_there_is():
    with pytest.raises(UsageError, match=r"no criterion 'zzzzzz'; accepted are hybrid, .*fpgm"):
        criterion("zzzzzz")


def test_names_cost_no_heavy_import():
    code = (
        "import sys; from edgeprune.importance.registry import criterion_names; criterion_names(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_documented_example_runs_as_a_plugin(install):
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    entry = re.search(
        r'\[project\.entry-points\."([\w.]+)"\]\n(\w+) = "my_package\.(\w+):(\w+)"', PAGE.read_text()
    )
    group, name, module, kind = entry.groups()
    assert group == registry.ENTRY_POINT_GROUP
    assert example[1].startswith(f"# my_package/{module}.py")
    install([(name, f"documented_{module}:{kind}")], **{f"documented_{module}": example[1]})
    assert criterion_names()[-1] == name
    found = score(name, context_of(three_filters()))
    np.testing.assert_allclose(found.values, [4, 1, 2])
    np.testing.assert_allclose(found.removal_costs, np.array([4, 1, 2]) * 3 / 7 / 3)


def test_the_page_lists_every_criterion():
    listed = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(criterion_names())


def test_a_plugin_may_be_an_instance(install):
    install([("mine", "their_instance:made")], their_instance=MINIMAL + "made = Mine()\n")
    assert criterion("mine").summary == "nothing"


def test_a_broken_plugin_is_named_and_harms_nobody_else(install):
    install([("broken", "no_such_module_y:Thing"), ("mine", "their_criteria:Mine")], their_criteria=MINIMAL)
    assert criterion_names()[-2:] == ("broken", "mine")
    assert criterion("l1").name == "l1"
    assert criterion("mine").name == "mine"
    with pytest.raises(UsageError, match=r"'broken' .*no_such_module_y.*uninstall"):
        criterion("broken")


def test_a_plugin_with_the_name_of_ours_is_refused(install):
    install([("l1", "their_criteria:Mine")], their_criteria=MINIMAL)
    for call in (criterion_names, lambda: criterion("l1")):
        with pytest.raises(UsageError, match=r"'l1' of an unknown package has the name of one of edgeprune"):
            call()


def test_two_plugins_of_one_name_are_refused(install):
    install(
        [("mine", "their_criteria:Mine"), ("mine", "others:Mine")], their_criteria=MINIMAL, others=MINIMAL
    )
    with pytest.raises(UsageError, match=r"'mine' .*has the name of one of an unknown package"):
        criterion_names()


def test_a_plugin_has_to_be_a_criterion_of_its_entry_points_name(install):
    install(
        [("yours", "their_criteria:Mine"), ("half", "their_criteria:Half")],
        their_criteria=MINIMAL + "class Half:\n    name = 'half'\n    summary = ''\n",
    )
    with pytest.raises(UsageError, match=r"'yours' .*calls itself 'mine'"):
        criterion("yours")
    with pytest.raises(UsageError, match=r"'half' .*lacks passes, score"):
        criterion("half")
