"""``check`` and ``compare`` on output folders of sweeps: cells against the cells of the same name."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from gate_files import sweep_folder, tiny_output

from edgeprune.cli import main

LIMITS = "max_size_ratio = 1.02\nmax_drop_points = 1.5\n"


@pytest.fixture
def budget(tmp_path: Path) -> str:
    (tmp_path / "budget.toml").write_text(LIMITS)
    return str(tmp_path / "budget.toml")


def checked(capsys: Any, *arguments: str) -> tuple[int, dict[str, str]]:
    """Exit status, and the worst of each cell."""
    status = main(["check", *arguments, "--json", "--threads", "1", "-q"])
    found = json.loads(capsys.readouterr().out)
    cells = {}
    for cell in found["result"]["cells"]:
        every = [c["decision"] for c in (cell["result"] or {"checks": []})["checks"]]
        cells[cell["name"]] = cell["missing"] or ("failed" if "failed" in every else every[0])
    return status, cells


def test_every_cell_is_held_against_the_one_of_its_name_and_the_worst_decides(
    tmp_path: Path, capsys: Any, budget: str
) -> None:
    base = sweep_folder(tmp_path / "base", {"a": 8, "b": 8, "c": 8})
    same = sweep_folder(tmp_path / "same", {"a": 8, "b": 8, "c": 8})
    worse = sweep_folder(tmp_path / "worse", {"a": 8, "b": 32, "new": 8}, failed=("d",))
    against = ("--baseline", str(base), "--budget", budget)
    assert checked(capsys, str(same), *against) == (0, dict.fromkeys("abc", "passed"))
    assert checked(capsys, str(same / "sweep.json"), *against)[0] == 0
    status, cells = checked(capsys, str(worse), *against)
    assert status == 1
    assert (cells["a"], cells["b"], cells["new"]) == ("passed", "failed", "passed")
    assert cells["d"] == "the cell failed: it was refused"
    assert "this sweep does not" in cells["c"]


def test_every_form_names_the_cells(tmp_path: Path, capsys: Any, budget: str) -> None:
    base = sweep_folder(tmp_path / "base", {"a": 8, "b": 8, "gone": 8})
    worse = sweep_folder(tmp_path / "worse", {"a": 8, "b": 32})
    files = {name: tmp_path / name for name in ("junit", "summary", "comment")}
    asked = [str(worse), "--baseline", str(base), "--budget", budget, "--threads", "1", "--annotations"]
    asked += [word for name, path in files.items() for word in (f"--{name}", str(path))]
    assert main(["check", *asked]) == 1
    shown = capsys.readouterr()
    assert "FAILED: 2 of 3 cells: b, gone" in shown.out
    assert "::error title=edgeprune check%3A b%3A ONNX file (max_size_ratio)::" in shown.err
    assert "::error title=edgeprune check%3A gone::the baseline has the cell" in shown.err
    cases = [(c.get("classname"), [e.tag for e in c]) for c in ET.parse(files["junit"]).iter("testcase")]
    assert ("edgeprune.b", ["failure"]) in cases
    assert ("edgeprune.gone", ["failure"]) in cases
    assert ("edgeprune.a", ["system-out"]) in cases
    text = files["summary"].read_text()
    assert text in files["comment"].read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("|")[1:3] for row in rows] == [
        [" `a` ", " passed "],
        [" `b` ", " FAILED "],
        [" `gone` ", " FAILED, missing "],
    ]


def test_new_cells_are_left_to_the_budget(tmp_path: Path, capsys: Any) -> None:
    base, grown = (
        sweep_folder(tmp_path / name, dict.fromkeys(cells, 8))
        for name, cells in (("base", ("a",)), ("grown", ("a", "new")))
    )
    status = main(["check", str(grown), "--baseline", str(base), "--threads", "1"])
    assert status == 0
    assert "Cells that the baseline does not have were not checked: new." in capsys.readouterr().out


def test_what_is_no_sweep_beside_one_is_refused(tmp_path: Path, capsys: Any, budget: str) -> None:
    sweep, alone = sweep_folder(tmp_path / "s", {"a": 8}), tiny_output(tmp_path / "alone")
    for given in (["check", str(sweep), "--baseline", str(alone)], ["compare", str(alone), str(sweep)]):
        assert main(given) == 2
        assert "is a sweep and" in capsys.readouterr().err
    assert main(["check", str(sweep)]) == 2
    assert "nothing was given to check against" in capsys.readouterr().err
    shutil.rmtree(sweep / "cells" / "a")
    assert main(["check", str(sweep), "--budget", budget]) == 2
    assert "cell a: " in capsys.readouterr().err


@pytest.mark.parametrize("place", ["../a", "/elsewhere/a"])
def test_a_cell_outside_of_its_sweep_is_refused(place: str, tmp_path: Path, capsys: Any, budget: str) -> None:
    sweep = sweep_folder(tmp_path / "s", {"a": 8})
    text = (sweep / "sweep.json").read_text()
    (sweep / "sweep.json").write_text(text.replace('"cells/a"', json.dumps(place)))
    assert main(["check", str(sweep), "--budget", budget]) == 2
    assert "accepted are folders within that of the sweep" in capsys.readouterr().err


def test_sweeps_are_compared_by_cell(tmp_path: Path, capsys: Any) -> None:
    first = sweep_folder(tmp_path / "first", {"a": 8, "b": 8})
    second = sweep_folder(tmp_path / "second", {"a": 32}, failed=("b",))
    pages = [tmp_path / "c.md", tmp_path / "c.html"]
    asked = ["compare", str(first), str(second), "--no-measure", "--threads", "1"]
    assert main([*asked, "--markdown", str(pages[0]), "--html", str(pages[1]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["cells"]
    assert [(cell["name"], cell["comparison"] is None) for cell in found] == [("a", False), ("b", True)]
    assert found[1]["missing"].endswith("it failed there: it was refused")
    for page in pages:
        assert "it was refused" in page.read_text()
    assert main(["compare", str(first)]) == 2
    assert "one sweep was given" in capsys.readouterr().err
